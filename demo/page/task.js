// A panel's form with its buttons: Go runs a task of Python's, Stop stops it, and what is said stands below.

export class Task {
  // options(): what the task is given, beside the fields of the form. begin(fresh), show(value), end(): what the panel draws.
  constructor(panel, python, name, { options = () => ({}), begin = () => {}, show, end = () => {} }) {
    Object.assign(this, { python, name, options, begin, show, end });
    [this.form, this.go, this.halt, this.fresh, this.said] = ["form", ".go", ".stop", ".fresh", ".said"].map((one) =>
      panel.querySelector(one),
    );
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.form.reportValidity()) this.run();
    });
    this.halt.addEventListener("click", () => this.stop());
    this.fresh?.addEventListener("click", () => this.run({ fresh: true }));
  }

  fields() {
    const entries = [...this.form.elements].filter((one) => one.name && !one.disabled && one.type !== "checkbox");
    const value = (one) => (one.type === "number" || one.name === "label" ? Number(one.value) : one.value);
    return Object.fromEntries(entries.map((one) => [one.name, value(one)]));
  }

  async run(more = this.fresh ? { fresh: false } : {}) {
    this.say("");
    this.begin(more.fresh);
    this.#busy(true);
    const mine = (this.current = {});
    try {
      const options = { ...this.fields(), ...this.options(), ...more };
      await this.python().run(this.name, options, (value) => mine === this.current && this.show(value));
      this.end();
    } catch (error) {
      this.say(error.message, true);
    }
    if (mine === this.current) this.#busy(false);
  }

  stop() {
    this.halt.disabled = true;
    this.python().stop(this.name);
  }

  say(text, failed = false) {
    this.said.textContent = text;
    this.said.classList.toggle("failed", failed);
  }

  #busy(is) {
    this.halt.disabled = !is;
    this.go.disabled = is;
    if (this.fresh) this.go.textContent = is ? "Training" : "Go on";
  }
}
