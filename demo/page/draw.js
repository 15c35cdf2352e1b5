// Pictures on a canvas, and curves as SVG.

// Grey levels of n images of size x size, `columns` to a row, with a line between two.
export function pictures(canvas, levels, size, columns = 1) {
  const n = levels.length / size ** 2;
  const rows = Math.ceil(n / columns);
  const pitch = n > 1 ? size + 1 : size;
  canvas.width = columns * pitch - (n > 1);
  canvas.height = rows * pitch - (n > 1);
  const context = canvas.getContext("2d");
  for (let i = 0; i < n; i++) {
    const image = context.createImageData(size, size);
    for (let p = 0; p < size ** 2; p++) {
      image.data.fill(levels[i * size ** 2 + p], 4 * p, 4 * p + 3);
      image.data[4 * p + 3] = 255;
    }
    context.putImageData(image, (i % columns) * pitch, Math.floor(i / columns) * pitch);
  }
}

const WIDTH = 300;
const HEIGHT = 180;
const MARGIN = 16;

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const short = (value) => String(Number(value.toPrecision(3)));

// series: [{name, x, y, log}], each with a scale of its own on y; mark: an x to mark; label: what x is.
export function curves(svg, series, { label = "", mark = null } = {}) {
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.replaceChildren();
  const xs = series.flatMap(({ x }) => [x[0], x.at(-1)]).filter(Number.isFinite);
  if (!xs.length) return;
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const across = (x) => MARGIN + ((x - left) / (right - left || 1)) * (WIDTH - 2 * MARGIN);
  const spoken = [];
  for (const [i, { name, x, y, log }] of series.entries()) {
    const kind = i ? "b" : "a";
    const values = Array.from(y, log ? Math.log10 : Number);
    const seen = values.filter(Number.isFinite);
    if (!seen.length) continue;
    const [low, high] = [seen.reduce((a, b) => Math.min(a, b)), seen.reduce((a, b) => Math.max(a, b))];
    const down = (value) => HEIGHT - 28 - ((value - low) / (high - low || 1)) * (HEIGHT - 64);
    const path = values.map((value, k) => (Number.isFinite(value) ? `${across(x[k]).toFixed(1)},${down(value).toFixed(1)}` : ""));
    svg.append(element("path", { class: kind, d: "M" + path.filter(Boolean).join("L") }));
    const ends = [low, high].map((value) => short(log ? 10 ** value : value));
    const words = `${name}: ${ends[0]} to ${ends[1]}`;
    svg.append(element("text", { class: kind, x: MARGIN, y: 14 + 13 * i }, words));
    spoken.push(words);
  }
  svg.append(element("line", { class: "axis", x1: MARGIN, x2: WIDTH - MARGIN, y1: HEIGHT - 22, y2: HEIGHT - 22 }));
  svg.append(element("text", { x: MARGIN, y: HEIGHT - 8 }, short(left)));
  svg.append(element("text", { x: WIDTH / 2, y: HEIGHT - 8, "text-anchor": "middle" }, label));
  svg.append(element("text", { x: WIDTH - MARGIN, y: HEIGHT - 8, "text-anchor": "end" }, short(right)));
  if (mark !== null) {
    const at = across(mark);
    svg.append(element("line", { class: "mark", x1: at, x2: at, y1: 32, y2: HEIGHT - 22 }));
  }
  svg.setAttribute("aria-label", `${label}: ${spoken.join("; ")}`);
}

// A loss that grows: every step, and the mean of the last twentieth.
export function lossCurve(svg, losses) {
  const window = Math.max(1, Math.round(losses.length / 20));
  const mean = [];
  let sum = 0;
  for (let i = 0; i < losses.length; i++) {
    sum += losses[i] - (i >= window ? losses[i - window] : 0);
    mean.push(sum / Math.min(i + 1, window));
  }
  const stride = Math.ceil(losses.length / 600);
  const x = losses.map((_, i) => i + 1).filter((_, i) => i % stride === 0);
  curves(svg, [{ name: `mean of the last ${window}`, x, y: mean.filter((_, i) => i % stride === 0), log: true }], { label: "step" });
}
