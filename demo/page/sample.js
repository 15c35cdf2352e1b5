// Sample: the reverse process of the trained model, as it runs, and again by the slider.

import { pictures } from "page/draw";
import { Task } from "page/task";

export function sample(panel, python, about) {
  const again = document.getElementById("again");
  const [x, x0] = ["chain-x", "chain-x0"].map((id) => document.getElementById(id));
  const label = panel.querySelector("[name=label]");
  for (let digit = 0; digit < about.classes; digit++) label.add(new Option(digit, digit));
  let chain = [];

  function look(at) {
    const { xt, x0_hat, t } = chain[at];
    const columns = Math.ceil(Math.sqrt(xt.length / about.size ** 2));
    pictures(x, xt, about.size, columns);
    pictures(x0, x0_hat, about.size, columns);
    again.setAttribute("aria-valuetext", `t = ${t}`);
  }

  function show(value) {
    chain.push(value);
    Object.assign(again, { max: chain.length - 1, value: chain.length - 1, disabled: false });
    look(chain.length - 1);
    const rate = (1000 * value.seconds) / Math.max(1, chain.length - 1);
    task.say(`t = ${value.t}; ${rate.toFixed(0)} ms a step`);
  }

  function command() {
    const { n, label, seed, steps, sampler, guidance } = task.fields();
    const labelled = label >= 0 ? ` --label ${label}` : "";
    document.getElementById("command").textContent =
      `tinyddpm sample demo/page/digits.npz --out digits.png --n ${n} --seed ${seed} --steps ${steps} --sampler ${sampler} --guidance ${guidance}${labelled}`;
  }

  const task = new Task(panel, python, "sample", { begin: () => (chain = []), show });
  task.form.addEventListener("input", command);
  again.addEventListener("input", () => look(Number(again.value)));
  command();
}
