// Keeps a page current. Sections with `data-live` are read again after each event, at most once a
// second; nothing is drawn here. Pages are complete without this script.
(() => {
  const sections = () => document.querySelectorAll("[data-live]");
  const live = document.getElementById("live");
  const show = (word) => { live.hidden = false; live.className = "live " + word; live.textContent = word; };

  const rough = (s) => s < 90 ? s + " s" : s < 5400 ? Math.round(s / 60) + " min"
    : s < 129600 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d";
  const tick = () => document.querySelectorAll("time[data-ago]").forEach((it) => {
    const s = Math.round((Date.now() - new Date(it.dateTime)) / 1000);
    it.textContent = s < -4 ? "in " + rough(-s) : s < 5 ? "now" : rough(s) + " ago";
  });
  setInterval(tick, 5000);

  let waits = false, dirty = false;
  const read = async () => {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    sections().forEach((old) => {
      const now = fresh.getElementById(old.id);
      const at = document.activeElement;
      if (!now || now.innerHTML === old.innerHTML || (old.contains(at) && at.matches("input, select, textarea"))) return;
      const open = [...old.querySelectorAll("details")].map((it) => it.open);
      const place = old.contains(at) ? [...old.querySelectorAll("a, button, summary")].indexOf(at) : -1;
      old.replaceChildren(...now.childNodes);
      old.querySelectorAll("details").forEach((it, n) => { if (open[n]) it.open = true; });
      if (place >= 0) old.querySelectorAll("a, button, summary")[place]?.focus();
    });
    document.title = fresh.title;
  };
  const changed = () => {
    if (document.hidden) { dirty = true; return; }
    if (waits) return;
    waits = true;
    setTimeout(() => { waits = false; read().catch(() => {}); }, 1000);
  };
  if (sections().length) {
    const events = new EventSource("/events");
    events.onopen = () => show("live");
    events.onerror = () => show("offline");
    ["build", "progress", "deleted", "machine", "trial", "notices", "reset"]
      .forEach((kind) => events.addEventListener(kind, changed));
    document.addEventListener("visibilitychange", () => { if (!document.hidden && dirty) { dirty = false; changed(); } });
  }
})();
