// The worker: Python in WebAssembly, off the page's own thread. It is sent files once, then tasks by name.
// A task is a Python generator. Between two of its values the worker looks at its mail, so that it can be stopped.

const running = new Map(); // task name -> the number of its run
let start; // worker.py's `start(task, options)`

const unpacked = async ({ url, integrity }, type) => {
  const answer = await fetch(url, { integrity });
  return new Response(answer.body.pipeThrough(new DecompressionStream("gzip")), { headers: { "Content-Type": type } });
};
const blobURL = async (file, type) => URL.createObjectURL(await (await unpacked(file, type)).blob());

async function boot({ core, archives }) {
  const script = "text/javascript";
  const { loadPyodide } = await import(await blobURL(core["pyodide.mjs"], script));
  const { default: createPyodideModule } = await import(await blobURL(core["pyodide.asm.mjs"], script));
  const wasm = await blobURL(core["pyodide.asm.wasm"], "application/wasm");
  const packed = archives.map((file) => unpacked(file, "application/zip").then((answer) => answer.arrayBuffer()));
  const pyodide = await loadPyodide({
    createPyodideModule,
    stdLibURL: await blobURL(core["python_stdlib.zip"], "application/zip"),
    indexURL: wasm + "#", // it fetches indexURL/pyodide.asm.wasm: what follows # does not count
    lockFileContents: { info: { abi_version: "2026_0" }, packages: {} }, // nothing more to load
  });
  for (const archive of await Promise.all(packed)) pyodide.unpackArchive(archive, "zip", { extractDir: "/project" });
  pyodide.runPython("import sys; sys.path.insert(0, '/project')");
  const python = pyodide.pyimport("worker");
  start = (task, options) => python.start(task, pyodide.toPy(options));
  return python.about().toJs({ dict_converter: Object.fromEntries });
}

async function run(task, number, options) {
  running.set(task, number);
  const values = start(task, options);
  for (const value of values) {
    postMessage({ number, value: value.toJs({ dict_converter: Object.fromEntries }) });
    value.destroy();
    await new Promise((resolve) => setTimeout(resolve)); // its mail
    if (running.get(task) !== number) break; // stopped, or begun anew
  }
  values.destroy();
}

onmessage = async ({ data: { number, task, options, files } }) => {
  try {
    if (files) postMessage({ number, value: await boot(files) });
    else if (options) await run(task, number, options);
    else running.delete(task);
    postMessage({ number, ended: true });
  } catch (error) {
    postMessage({ number, failed: error.message.trim().split("\n").at(-1) });
  }
};
