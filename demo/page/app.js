// The page: panels in tabs, and one Python for all of them but Check, which has its own.

import { check } from "page/check";
import { digits } from "page/digits";
import { points } from "page/points";
import { Python } from "page/python";
import { sample } from "page/sample";
import { scrub } from "page/scrub";

const PANELS = { scrub, sample, points, digits, check };
const status = document.getElementById("status");
const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.ariaSelected = chosen;
    one.tabIndex = chosen ? 0 : -1;
    document.getElementById(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
}

for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[key];
    if (to === undefined) return;
    const next = tabs.at(to % tabs.length);
    choose(next);
    next.focus();
  });
}
choose(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0]);

const python = new Python();
try {
  const about = await python.ready;
  status.textContent = `Ready after ${(performance.now() / 1000).toFixed(1)} s: ${about.versions}`;
  for (const [name, begin] of Object.entries(PANELS)) begin(document.getElementById(name), () => python, about);
  document.body.dataset.ready = performance.now();
} catch (error) {
  status.textContent = `Python did not start: ${error.message}`;
  status.classList.add("failed");
}
