// A square to draw on with a mouse, a finger or a pen; or with the keys: arrows move, space draws, Shift-space rubs out.

export class Pad {
  // soft: ink thins towards the rim of the brush, as in a grey image; else a cell has ink or none.
  constructor(place, side, { label, onchange, soft }) {
    Object.assign(this, { side, onchange, soft, ink: new Uint8Array(side ** 2), pen: [side / 2, side / 2] });
    this.canvas = document.createElement("canvas");
    Object.assign(this.canvas, { id: `${place.id}-canvas`, className: "pad", width: side, height: side, tabIndex: 0 });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `${label}. Arrow keys move the pen, space draws, Shift and space rub out.`);
    place.append(this.canvas);
    this.canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const end of ["focus", "blur"]) this.canvas.addEventListener(end, () => this.#show());
    this.#show();
  }

  set(ink) {
    this.ink.set(ink);
    this.#show();
  }

  clear() {
    this.set(new Uint8Array(this.side ** 2));
    this.onchange();
  }

  #begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pen = this.#at(event);
    this.#stroke(this.pen);
  }

  #move(event) {
    if (event.buttons) for (const each of event.getCoalescedEvents?.() ?? [event]) this.#stroke(this.#at(each));
  }

  #at({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [((clientX - box.left) / box.width) * this.side, ((clientY - box.top) / box.height) * this.side];
  }

  #key(event) {
    const move = { ArrowLeft: [-0.5, 0], ArrowRight: [0.5, 0], ArrowUp: [0, -0.5], ArrowDown: [0, 0.5] }[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const inside = (value) => Math.min(Math.max(value, 0), this.side - 0.01);
    if (move) {
      this.pen = this.pen.map((value, axis) => inside(value + move[axis]));
      this.#show();
    } else this.#dot(this.pen, event.shiftKey);
  }

  #stroke(to) {
    const [from, steps] = [this.pen, 8];
    for (let i = 1; i <= steps; i++) this.#ink(from.map((value, axis) => value + ((to[axis] - value) * i) / steps));
    this.pen = to;
    this.#changed();
  }

  #dot(at, rub) {
    this.#ink(at, rub);
    this.#changed();
  }

  #ink([x, y], rub = false) {
    for (let cell = 0; cell < this.ink.length; cell++) {
      const distance = Math.hypot((cell % this.side) + 0.5 - x, Math.floor(cell / this.side) + 0.5 - y);
      const level = this.soft ? 255 * Math.min(Math.max(1.4 - distance, 0), 1) : distance < 0.9 ? 255 : 0;
      if (rub && level) this.ink[cell] = 0;
      else this.ink[cell] = Math.max(this.ink[cell], level);
    }
  }

  #changed() {
    this.#show();
    this.onchange();
  }

  #show() {
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(this.side, this.side);
    this.ink.forEach((level, cell) => image.data.set([level, level, level, 255], 4 * cell));
    if (document.activeElement === this.canvas) {
      const [x, y] = this.pen.map(Math.floor);
      image.data.set([255, 90, 100, 255], 4 * (Math.min(y, this.side - 1) * this.side + Math.min(x, this.side - 1)));
    }
    context.putImageData(image, 0, 0);
  }
}
