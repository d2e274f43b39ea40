"use strict";
// What htmx does not: writes to the API, the cursor in charts, times in the reader's zone, light and dark.

// Not an event for htmx: a throttled element would not hear it.
function refresh() {
  const part = document.getElementById("live");
  if (part && window.htmx) htmx.ajax("GET", part.getAttribute("hx-get"), { source: part, target: part, select: "#live", swap: "outerHTML" });
}

const announce = (text) => { document.getElementById("announcer").textContent = text; };

// --- light and dark

document.getElementById("theme-switch")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme === "dark"
    || (root.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("tidegate-theme", root.dataset.theme);
  announce(dark ? "Light colours" : "Dark colours");
});

// --- live or still

const liveSwitch = document.getElementById("live-switch");
let live = sessionStorage.getItem("tidegate-live") !== "off";

function showLive(stream) {
  if (!liveSwitch) return;
  liveSwitch.setAttribute("aria-pressed", String(live));
  liveSwitch.dataset.stream = live ? stream : "off";
  liveSwitch.querySelector(".word").textContent = !live ? "Paused" : stream === "lost" ? "Reconnecting" : "Live";
}

let stream = "lost";
showLive(stream);
liveSwitch?.addEventListener("click", () => {
  live = !live;
  sessionStorage.setItem("tidegate-live", live ? "on" : "off");
  showLive(stream);
  if (live) refresh();
});
document.addEventListener("htmx:sseOpen", () => { showLive(stream = "open"); });
document.addEventListener("htmx:sseError", () => { showLive(stream = "lost"); });
// At this event: a request that is stopped later counts as one under way, and holds up the next.
document.addEventListener("htmx:confirm", (event) => {
  const trigger = event.detail.triggeringEvent?.type ?? "";
  // Reading with the mouse on a chart, or a selection, must not be taken away from under the reader.
  const busy = document.querySelector("#live .chart:hover, #live .chart:focus") || !document.getSelection().isCollapsed;
  if (trigger.startsWith("sse:") && (!live || document.hidden || busy)) event.preventDefault();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && live) refresh(); });
function logIn() { location.assign("/dashboard/login?next=" + encodeURIComponent(location.pathname + location.search)); }
document.addEventListener("htmx:responseError", (event) => { if (event.detail.xhr.status === 401) logIn(); });

// What was open stays open, though its part of the page is new.
let opened = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  // The session ended: what came instead of the page is where to log in.
  if (new URL(event.detail.xhr.responseURL).pathname === "/dashboard/login") { event.detail.shouldSwap = false; return logIn(); }
  opened = [...document.querySelectorAll("#live details[open][id]")].map((one) => one.id);
});
document.addEventListener("htmx:afterSettle", () => {
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  localTimes(document);
});

// --- times

function localTimes(within) {
  const zoned = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of within.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    const today = moment.toDateString() === new Date().toDateString();
    time.textContent = today ? moment.toLocaleTimeString() : zoned.format(moment);
    time.title = time.dateTime;
  }
  for (const text of within.querySelectorAll("text[data-epoch]")) {
    const seconds = (text.textContent.match(/:/g) ?? []).length > 1;
    text.textContent = new Date(text.dataset.epoch * 1000).toLocaleTimeString(undefined,
      { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hour12: false });
  }
}
localTimes(document);

// --- the cursor in charts

const readings = new WeakMap();

function reading(figure) {
  if (!readings.has(figure)) readings.set(figure, { data: JSON.parse(figure.dataset.chart), at: null, words: figure.querySelector(".readout").textContent });
  return readings.get(figure);
}

function pointAt(figure, index) {
  const read = reading(figure), { data } = read;
  const line = figure.querySelector(".cursor"), output = figure.querySelector(".readout");
  if (index === null) {
    read.at = null;
    line.setAttribute("visibility", "hidden");
    output.textContent = read.words;
    return;
  }
  read.at = Math.max(0, Math.min(data.rows.length - 1, index));
  const [moment, came, low, middle, high] = data.rows[read.at];
  const x = `${(moment - data.from) / (data.to - data.from) * 100}%`;
  line.setAttribute("x1", x); line.setAttribute("x2", x); line.setAttribute("visibility", "visible");
  const shown = (value) => value === null ? "no data" : `${value} ${data.unit}`;
  const ahead = moment > data.end;
  const when = new Date(moment * 1000).toLocaleTimeString();
  const fan = high === null || high === undefined ? "no forecast" : `forecast ${middle} (${low} to ${high}) ${data.unit}`;
  output.textContent = ahead ? `${when}: ${fan}` : `${when}: ${came === null ? "no data" : `offered ${shown(came)}`}, ${fan}`;
}

document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest?.(".chart .plot");
  for (const figure of document.querySelectorAll(".chart")) {
    if (plot && figure.contains(plot)) {
      const { data } = reading(figure), box = plot.getBoundingClientRect();
      const moment = data.from + (event.clientX - box.left) / box.width * (data.to - data.from);
      let best = 0;
      data.rows.forEach((row, at) => { if (Math.abs(row[0] - moment) < Math.abs(data.rows[best][0] - moment)) best = at; });
      if (data.rows.length) pointAt(figure, best);
    } else if (readings.get(figure)?.at !== null && readings.has(figure) && document.activeElement !== figure) pointAt(figure, null);
  }
});
document.addEventListener("keydown", (event) => {
  const figure = document.activeElement?.closest?.(".chart");
  if (!figure || !["ArrowLeft", "ArrowRight", "Home", "End", "Escape"].includes(event.key)) return;
  const { data, at } = reading(figure), last = data.rows.length - 1;
  if (last < 0) return;
  const now = data.rows.findIndex((row) => row[0] >= data.end);
  const from = at ?? (now < 0 ? last : now);
  pointAt(figure, { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last, Escape: null }[event.key]);
  event.preventDefault();
});

// --- writes: forms and buttons that name a route of the API

const number = (form, name) => { const value = form.elements[name]?.value.trim(); return value ? Number(value) : null; };

function pair(form, up, down) {
  const [above, below] = [number(form, up), number(form, down)];
  if (above === null && below === null) return {};
  return { up: above ?? 0, down: below ?? 0 };
}

const bodies = {
  login: (form) => ({ token: form.elements.token.value }),
  boost: (form) => {
    const guarantee = pair(form, "up", "down"), factor = number(form, "weight_factor");
    return {
      pools: [form.dataset.pool],
      end: Date.now() / 1000 + 60 * number(form, "minutes"),
      reason: form.elements.reason.value,
      ...("up" in guarantee ? { guarantee_mbps: guarantee } : {}),
      ...(factor !== null ? { weight_factor: factor } : {}),
    };
  },
  override: (form) => {
    const found = {};
    for (const name of ["guarantee", "ceiling"]) {
      const [up, down] = [number(form, `${name}_up`), number(form, `${name}_down`)];
      if (up === null && down === null) continue;
      if (up === null || down === null) throw new Error(`${name}: give both directions`);
      found[`${name}_mbps`] = { up, down };
    }
    const weight = number(form, "weight");
    return weight === null ? found : { ...found, weight };
  },
};

async function send(method, path, body) {
  const answer = await fetch(path, {
    method,
    credentials: "same-origin",
    headers: { "Tidegate-CSRF": "1", ...(body ? { "Content-Type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : undefined,
  });
  const text = await answer.text();
  const found = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Error(found?.title ?? `the planner answered ${answer.status}`);
  return found;
}

function tell(output, kind, text) {
  if (!output) return announce(text);
  output.className = `result ${kind}`;
  output.textContent = text;
}

// What a dry run found, as a list.
function changes(found) {
  const more = found.meters.length - 20;
  const rows = found.meters.slice(0, 20).map((one) =>
    `${one.pool} ${one.direction === "up" ? "upload" : "download"}: ${one.before_kbps} → ${one.after_kbps} kbit/s (switch ${one.dpid}, meter ${one.meter_id})`);
  if (more > 0) rows.push(`and ${more} more`);
  return rows;
}

const done = {
  boost: (found) => `Done: ${found.id} until ${new Date(found.end * 1000).toLocaleTimeString()}. The next plan follows it.`,
  override: () => "Done: the next plan follows it.",
};

async function write(element, method, path, body, kind) {
  const output = element.querySelector?.(".result") ?? document.querySelector("main .result");
  for (const button of element.querySelectorAll?.("button") ?? []) button.disabled = true;
  try {
    const found = await send(method, path, body);
    if (kind === "login") return location.assign(new URLSearchParams(location.search).get("next")?.match(/^\/(?!\/).*/)?.[0] ?? "/dashboard");
    if (found?.dry_run) {
      tell(output, "tried", found.meters.length ? `Nothing is changed yet. ${found.meters.length} meters would be:` : "It would change no meter.");
      const list = output.appendChild(document.createElement("ul"));
      for (const row of changes(found)) list.appendChild(document.createElement("li")).textContent = row;
      return;
    }
    tell(output, "done", done[kind]?.(found) ?? "Done.");
    refresh();
  } catch (error) {
    tell(output, "refused", error.message);
  } finally {
    for (const button of element.querySelectorAll?.("button") ?? []) button.disabled = false;
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.api) return;
  event.preventDefault();
  let body;
  try { body = bodies[form.dataset.kind](form); } catch (error) { return tell(form.querySelector(".result"), "refused", error.message); }
  const path = form.dataset.api + (event.submitter?.name === "try" ? "?dry_run=true" : "");
  write(form, form.dataset.method, path, body, form.dataset.kind);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-api]");
  if (!button || (button.dataset.confirm && !confirm(button.dataset.confirm))) return;
  write(button, button.dataset.method, button.dataset.api, null, "button");
});
document.getElementById("log-out")?.addEventListener("click", async () => {
  try { await send("DELETE", "/session"); } catch { /* No session: the login page is the place in any case. */ }
  location.assign("/dashboard/login");
});

// --- the audit log, read with the reader's own rights

const audit = document.getElementById("audit");
if (audit) {
  send("GET", audit.dataset.source).then((found) => {
    const rows = found.entries.reverse();
    const names = Object.keys(rows[0] ?? {}).filter((name) => !["n", "hash", "prev", "before"].includes(name));
    audit.tHead.replaceChildren(line("th", names));
    audit.tBodies[0].replaceChildren(...rows.map((row) => line("td", names.map((name) => row[name]), names)));
    if (!rows.length) audit.tBodies[0].replaceChildren(line("td", ["Nothing yet."]));
    localTimes(audit);
  }).catch((error) => audit.tBodies[0].replaceChildren(line("td", [error.message])));
}

function line(kind, values, names = []) {
  const row = document.createElement("tr");
  values.forEach((value, at) => {
    const cell = row.appendChild(document.createElement(kind));
    if (names[at]) cell.dataset.label = names[at];
    if (names[at] === "time") {
      const time = cell.appendChild(document.createElement("time"));
      time.dateTime = new Date(value * 1000).toISOString();
    } else cell.textContent = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  });
  return row;
}
