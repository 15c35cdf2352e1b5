// Train, in the plane: points flow from noise to data along the score, while the network learns.

import { lossCurve } from "page/draw";
import { Pad } from "page/pad";
import { Task } from "page/task";

const SIDE = 28; // of the drawing, in cells
const REACH = 1.9; // the plane is [-REACH, REACH] in both directions
const PIXELS = 560;
const HOLD = 0.25; // of a play, at its end

export function points(panel, python, about) {
  const find = (id) => document.getElementById(id);
  const { data, schedule } = panel.querySelector("form").elements;
  const [canvas, slider, plays] = [find("plane"), find("plane-at"), find("plane-plays")];
  const context = canvas.getContext("2d");
  const place = (x, y) => [(0.5 + x / REACH / 2) * PIXELS, (0.5 - y / REACH / 2) * PIXELS];
  const pad = new Pad(find("points-pad"), SIDE, { label: "Your own data", onchange() {} });
  let losses = [];
  let truth = null; // points of the data
  let flow = null; // what Python sent last: path (steps + 1, n, 2), scores (steps, grid, 2), t

  function draw(at) {
    const colour = (name) => getComputedStyle(document.body).getPropertyValue(name);
    context.clearRect(0, 0, PIXELS, PIXELS);
    const [steps, n] = [flow.t.length - 1, flow.path.length / flow.t.length];
    const [before, share] = [Math.min(Math.floor(at), steps), at % 1];
    dots(truth, colour("--second"), 1.6);
    arrows(Math.min(before, steps - 1), colour("--quiet"));
    const moved = Float32Array.from({ length: n }, (_, i) => {
      const from = flow.path[before * n + i];
      return from + share * ((flow.path[Math.min(before + 1, steps) * n + i] ?? from) - from);
    });
    dots(moved, colour("--accent"), 2.6);
    find("plane-t").value = flow.t[Math.round(at)];
  }

  function dots(xy, colour, radius) {
    context.fillStyle = colour;
    for (let i = 0; i < xy.length; i += 2) {
      const [x, y] = place(xy[i], xy[i + 1]);
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
    }
  }

  // The score on the grid at a step: its direction, and the root of its size for the length.
  function arrows(step, colour) {
    const size = flow.scores.length / (flow.t.length - 1);
    const side = Math.sqrt(size / 2);
    context.strokeStyle = colour;
    context.beginPath();
    for (let i = 0; i < side ** 2; i++) {
      const [sx, sy] = [flow.scores[step * size + 2 * i], flow.scores[step * size + 2 * i + 1]];
      const [x, y] = place(-1.8 + (3.6 * (i % side)) / (side - 1), -1.8 + (3.6 * Math.floor(i / side)) / (side - 1));
      const length = Math.min(20, 12 * Math.hypot(sx, sy) ** 0.5) / (Math.hypot(sx, sy) || 1);
      context.moveTo(x - sx * length * 0.2, y + sy * length * 0.2);
      context.lineTo(x + sx * length, y - sy * length);
      context.moveTo(x + 1.5, y);
      context.arc(x, y, 1.5, 0, 7);
    }
    context.stroke();
  }

  function play(now) {
    if (flow && !panel.hidden) {
      const steps = flow.t.length - 1;
      if (plays.checked) slider.value = Math.min(steps, (((now / 4000) % 1) * steps) / (1 - HOLD));
      draw(Number(slider.value));
    }
    requestAnimationFrame(play);
  }

  function show(value) {
    truth = value.data ?? truth;
    flow = value;
    losses.push(...value.losses);
    if (losses.length) lossCurve(find("points-loss"), losses);
    if (value.seconds) task.say(`${losses.length} steps of 256 points, ${(1000 * value.seconds).toFixed(1)} ms each`);
  }

  const task = new Task(panel, python, "train_points", {
    options: () => (data.value === "drawn" ? { cells: Array.from(pad.ink), side: SIDE } : {}),
    begin: (fresh) => fresh && (losses = []),
    show,
  });
  for (const name of about.schedules) schedule.add(new Option(name, name, false, name === "cosine"));
  canvas.width = canvas.height = PIXELS;
  slider.step = "any";
  slider.addEventListener("input", () => (plays.checked = false));
  plays.checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  data.addEventListener("change", () => (find("drawing").hidden = data.value !== "drawn"));
  find("points-clear").addEventListener("click", () => pad.clear());
  requestAnimationFrame(play);
}
