// Reads sections with `data-live` again after events.
(() => {
  const sections = () => document.querySelectorAll("[data-live]");
  const live = document.getElementById("live");
  const show = (word) => { live.hidden = false; live.className = "live " + (live.textContent = word); };

  const rough = (s) => s < 90 ? s + " s" : s < 5400 ? Math.round(s / 60) + " min"
    : s < 129600 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d";
  const tick = () => document.querySelectorAll("time[data-ago]").forEach((it) => {
    const s = Math.round((Date.now() - new Date(it.dateTime)) / 1000);
    it.textContent = s < -4 ? "in " + rough(-s) : s < 5 ? "now" : rough(s) + " ago";
  });
  setInterval(tick, 5000);

  const read = async () => {
    const answer = await fetch(location);
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    sections().forEach((old) => {
      const now = fresh.getElementById(old.id), at = document.activeElement;
      if (!now || now.innerHTML === old.innerHTML || (old.contains(at) && at.matches("input, select"))) return;
      if (old.querySelector("details[open]")) return;
      const stops = () => [...old.querySelectorAll("a, button, summary")];
      const place = stops().indexOf(at);
      old.replaceChildren(...now.childNodes);
      if (place >= 0) stops()[place]?.focus();
    });
  };
  let waits = false, events;
  const changed = () => {
    if (waits || document.hidden) return;
    waits = true;
    setTimeout(() => { waits = false; read().catch(() => {}); }, 1000);
  };
  const listen = () => {
    events?.close();
    if (document.hidden) return;
    events = new EventSource("/events");
    events.onopen = () => { show("live"); changed(); };
    events.onerror = () => show("offline");
    ["build", "progress", "deleted", "machine", "trial", "notices", "reset"]
      .forEach((kind) => events.addEventListener(kind, changed));
  };
  if (sections().length) {
    listen();
    document.addEventListener("visibilitychange", listen);
  }
})();
