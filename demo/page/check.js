// Check: the identities of the diffusion on the code in the page. It has a Python of its own, begun when first used,
// so that code that never ends can be ended without losing what the other panels have learned.

import { Python } from "page/python";
import { Task } from "page/task";

const ADAPTER = document.getElementById("adapter").textContent.trim() + "\n";
const FAULTS = JSON.parse(document.getElementById("faults").textContent); // {name: [right, wrong]}

export function check(panel) {
  const { code } = panel.querySelector("form").elements;
  const [fault, list] = ["fault", "verdicts"].map((id) => document.getElementById(id));
  let own;

  function show({ name, status, statement, example, error }) {
    if (error) return task.say(error, true);
    const item = Object.assign(document.createElement("li"), { className: status.replace(" ", "-") });
    const head = document.createElement("b");
    head.textContent = `${status}: ${name}`;
    item.append(head, ` ${statement}`);
    if (example) item.append(Object.assign(document.createElement("pre"), { textContent: example }));
    list[status === "fails" ? "prepend" : "append"](item);
    const count = (which) => list.querySelectorAll(`.${which}`).length;
    task.say(`${count("holds")} hold, ${count("fails")} fail, ${count("not-checked")} not checked`);
  }

  const task = new Task(panel, () => (own ??= new Python("checker")), "check", {
    begin() {
      list.replaceChildren();
      if (!own) task.say("A Python of its own is started for your code…");
    },
    show,
    end: () => list.firstChild?.scrollIntoView({ block: "start" }),
  });
  for (const name of Object.keys(FAULTS)) fault.add(new Option(name));
  fault.addEventListener("change", () => (code.value = ADAPTER.replace(...FAULTS[fault.value])));
  code.value = ADAPTER;
}
