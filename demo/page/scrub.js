// Scrub: one image, noised to t, and what the network makes of it.

import { curves, pictures } from "page/draw";
import { Pad } from "page/pad";

export function scrub(panel, python, about) {
  const { t: slider, seed, said } = panel.querySelector("form").elements;
  const find = (id) => document.getElementById(id);
  const steps = Array.from(about.alpha_bar.keys());
  const pad = new Pad(find("pad"), about.size, { label: "Your digit, x_0", soft: true, onchange: changed });
  let term = { t: [], loss: [], bits: [] };
  let waiting = null;
  let settled;

  function schedule() {
    const table = (name, y) => ({ name, x: steps, y });
    curves(find("curves"), [table("signal left, ᾱ", about.alpha_bar), table("log SNR", about.log_snr)], {
      label: "t",
      mark: Number(slider.value),
    });
    const line = (name, y) => ({ name, x: term.t, y, log: true });
    const drawn = [line("‖ε − ε̂‖² / d", term.loss), line("KL at t, bits/dim", term.bits)];
    curves(find("terms"), drawn, { label: "t", mark: Number(slider.value) });
  }

  // The latest wish is granted when Python is free; those between are dropped.
  async function noised() {
    said.value = slider.value;
    schedule();
    if (waiting) return void (waiting.again = true);
    waiting = { again: false };
    panel.ariaBusy = true;
    const options = { image: Array.from(pad.ink), t: Number(slider.value), seed: Number(seed.value) };
    await python().run("scrub", options, ({ xt, x0_hat, loss }) => {
      if (xt) pictures(find("xt"), xt, about.size);
      if (x0_hat) pictures(find("guess"), x0_hat, about.size);
      find("scrub-loss").textContent = loss === undefined ? "" : `squared error of ε: ${loss.toFixed(4)}`;
    });
    const { again } = waiting;
    waiting = null;
    panel.ariaBusy = again;
    if (again) noised();
  }

  function changed() {
    noised();
    clearTimeout(settled);
    settled = setTimeout(async () => {
      const mine = (term = { t: [], loss: [], bits: [] });
      await python().run("terms", { image: Array.from(pad.ink), seed: Number(seed.value) }, (value) => {
        for (const name of ["t", "loss", "bits"]) mine[name].push(value[name]);
        if (mine === term) schedule();
      });
    }, 400);
  }

  for (let digit = 0; digit * about.size ** 2 < about.examples.length; digit++) {
    const image = about.examples.slice(digit * about.size ** 2, (digit + 1) * about.size ** 2);
    const button = Object.assign(document.createElement("button"), { type: "button", ariaLabel: `digit ${digit}` });
    pictures(button.appendChild(document.createElement("canvas")), image, about.size);
    button.addEventListener("click", () => {
      pad.set(image);
      changed();
    });
    find("examples").append(button);
  }
  find("clear").addEventListener("click", () => pad.clear());
  slider.max = about.T;
  slider.addEventListener("input", noised);
  seed.addEventListener("input", changed);
  panel.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  find("examples").querySelectorAll("button")[3].click();
}
