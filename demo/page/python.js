// A Python that runs beside the page, in a worker: tasks by name, each a stream of values.

const files = JSON.parse(document.getElementById("files").textContent); // {worker, core, archives, checker}
const PATIENCE = 4000; // ms until a task that was asked to stop is taken not to listen, and its worker is ended

export class Python {
  #runs = new Map(); // number -> {task, onvalue, resolve, reject}
  #last = 0;

  // more: archives beside the project and NumPy.
  constructor(...more) {
    this.more = more;
    this.#begin();
  }

  #begin() {
    this.worker = new Worker(files.worker, { type: "module" });
    this.worker.onmessage = ({ data }) => this.#receive(data);
    const archives = [...files.archives, ...this.more.flatMap((name) => files[name])];
    this.ready = new Promise((resolve, reject) =>
      this.#send({ files: { core: files.core, archives } }, { onvalue: resolve, resolve() {}, reject }),
    );
    this.worker.onerror = ({ message }) => this.#lose(message || "the worker did not load");
  }

  #send(message, run) {
    this.#runs.set(++this.#last, run);
    this.worker.postMessage({ number: this.#last, ...message });
  }

  #receive({ number, value, ended, failed }) {
    const run = this.#runs.get(number);
    if (value !== undefined) return run?.onvalue(value);
    this.#runs.delete(number);
    if (ended) run?.resolve();
    else run?.reject(new Error(failed));
  }

  // Resolves when the task has ended, or was stopped; rejects with Python's last word if it failed.
  async run(task, options, onvalue) {
    await this.ready;
    return new Promise((resolve, reject) => this.#send({ task, options }, { task, onvalue, resolve, reject }));
  }

  // Ask a task to stop after the value that it is at. If it does not listen, the worker is ended and a new one begun.
  stop(task) {
    const mine = [...this.#runs].filter(([, run]) => run.task === task);
    this.#send({ task }, { onvalue() {}, resolve() {}, reject() {} });
    setTimeout(() => mine.some(([number]) => this.#runs.has(number)) && this.restart(), PATIENCE);
  }

  restart() {
    this.worker.terminate();
    this.#lose("stopped; Python was started anew");
    this.#begin();
  }

  #lose(reason) {
    const lost = [...this.#runs.values()];
    this.#runs.clear();
    for (const run of lost) run.reject(new Error(reason));
  }
}
