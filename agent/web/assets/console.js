// Connects a terminal with the console of a build's guest: it only watches until "Type" is pressed.
(() => {
  // xterm writes rules into <style> elements, which the policy of the pages refuses. Sheets that
  // scripts make are allowed, so each such element becomes one.
  const create = document.createElement.bind(document);
  document.createElement = (name, options) => {
    if (name !== "style") return create(name, options);
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    const place = create("template");
    Object.defineProperty(place, "textContent", { get: () => "", set: (rules) => sheet.replaceSync(rules) });
    return place;
  };
  const box = document.getElementById("terminal");
  const state = document.getElementById("console-state");
  const button = document.getElementById("console-type");
  const size = Math.max(7, Math.min(15, Math.floor(box.clientWidth / 80 / 0.61)));
  const terminal = new Terminal({ cols: 80, rows: 24, fontSize: size, scrollback: 5000,
    disableStdin: true, screenReaderMode: true, theme: { background: "#12161b", foreground: "#e4e8ed" } });
  terminal.open(box);
  let socket = null;
  const connect = (write) => {
    if (socket) { socket.onclose = null; socket.close(); }
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const path = "/api/v1/builds/" + box.dataset.build + "/console/ws" + (write ? "?write=true" : "");
    const mine = socket = new WebSocket(scheme + "//" + location.host + path);
    let opened = false;
    mine.binaryType = "arraybuffer";
    mine.onopen = () => {
      opened = true;
      terminal.reset();
      terminal.options.disableStdin = !write;
      state.textContent = write ? "typing" : "watching";
      if (button) { button.textContent = write ? "Watch only" : "Type"; button.setAttribute("aria-pressed", write); }
      if (write) terminal.focus();
    };
    mine.onmessage = (message) => terminal.write(new Uint8Array(message.data));
    mine.onclose = () => {
      terminal.options.disableStdin = true;
      if (!opened && write) { connect(false); setTimeout(() => { state.textContent = "another person types"; }, 500); return; }
      state.textContent = opened ? "ended" : "no guest with a console runs";
      if (button) button.disabled = true;
    };
  };
  terminal.onData((text) => { if (socket && socket.readyState === 1) socket.send(new TextEncoder().encode(text)); });
  if (button) button.onclick = () => connect(button.getAttribute("aria-pressed") !== "true");
  connect(false);
})();
