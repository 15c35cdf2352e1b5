// Train, digits: the loss of every step, and rows of samples that get better downwards.

import { lossCurve, pictures } from "page/draw";
import { Task } from "page/task";

const ROWS = 8; // of samples that are kept on view

export function digits(panel, python, about) {
  const schedule = panel.querySelector("[name=schedule]");
  for (const name of about.schedules) schedule.add(new Option(name, name, false, name === "cosine"));
  let losses = [];
  let rows = [];
  let latest = { t: 0 };

  function show({ loss, seconds, samples, t }) {
    if (samples) {
      if (latest.t > t) rows.pop(); // the same row, a step further
      latest = { t };
      rows = [...rows, samples].slice(-ROWS);
      pictures(document.getElementById("grown"), rows.flatMap((row) => [...row]), about.size, 10);
      return;
    }
    losses.push(loss);
    lossCurve(document.getElementById("digits-loss"), losses);
    task.say(`${losses.length} steps of 16 images, ${(1000 * seconds).toFixed(0)} ms each`);
  }

  const begin = (fresh) => fresh && ([losses, rows] = [[], []]);
  const task = new Task(panel, python, "train_digits", { begin, show });
}
