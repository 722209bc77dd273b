// Reads and follows the lines of a log.
(() => {
  const log = document.querySelector(".log[data-source]");
  if (!log) return;
  const rows = log.querySelector("ol"), KEPT = 3000, PART = 400;
  const number = (row) => row ? +row.id.slice(1) : 0;
  const first = () => number(rows.firstElementChild), last = () => number(rows.lastElementChild);
  const box = document.getElementById("follow");
  let total = +log.dataset.lines, busy = false, events = null;
  document.querySelectorAll(".pages").forEach((it) => { it.hidden = true; });

  const parse = (html) => new DOMParser().parseFromString("<ol>" + html + "</ol>", "text/html").querySelectorAll("li");
  const url = (base, from) => base + (base.includes("?") ? "&" : "?") + "from=" + from;
  const after = (fresh) => {
    if (fresh[0] && number(fresh[0]) !== last() + 1) rows.replaceChildren();
    rows.append(...fresh);
    let extra = rows.children.length - KEPT;
    if (extra > 0) {
      const height = log.scrollHeight;
      while (extra-- > 0) rows.firstElementChild.remove();
      log.scrollTop -= height - log.scrollHeight;
    }
    total = Math.max(total, last());
  };
  const before = (fresh) => {
    const top = rows.firstElementChild, at = top.offsetTop;
    rows.prepend(...fresh);
    log.scrollTop += top.offsetTop - at;
    while (rows.children.length > KEPT) rows.lastElementChild.remove();
  };
  const fill = async () => {
    if (busy || !rows.children.length) return;
    const down = log.scrollHeight - log.scrollTop - log.clientHeight < 800 && last() < total;
    const up = log.scrollTop < 800 && first() > 1;
    if (!down && !up) return;
    busy = true;
    try {
      const from = down ? last() + 1 : Math.max(1, first() - PART);
      const answer = await fetch(url(log.dataset.source, from) + "&count=" + (down ? PART : first() - from));
      if (answer.ok) (down ? after : before)(parse(await answer.text()));
    } finally { busy = false; }
  };
  log.addEventListener("scroll", fill);

  const end = () => { log.scrollTop = log.scrollHeight; };
  const follow = () => {
    events?.close();
    if (!box.checked || document.hidden) return;
    events = new EventSource(url(log.dataset.stream, last() + 1));
    events.addEventListener("lines", (event) => {
      log.querySelector(".none")?.remove();
      after(parse(event.data));
      if (box.checked) end();
    });
    events.addEventListener("end", () => { events.close(); box.checked = false; });
  };
  if (log.dataset.stream && box) {
    box.closest("label").hidden = false;
    box.addEventListener("change", () => { if (box.checked) end(); follow(); });
    log.addEventListener("wheel", (event) => { if (event.deltaY < 0) box.checked = false; }, { passive: true });
    document.addEventListener("visibilitychange", follow);
    follow();
  }
  const target = location.hash && rows.querySelector(location.hash) || rows.querySelector(".here") || rows.querySelector(".err");
  if (box?.checked || !target) end(); else log.scrollTop = target.offsetTop - log.clientHeight / 3;
})();
