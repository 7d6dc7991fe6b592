// How times, models and amounts are written.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const dayAndMonth = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const withYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const whole = new Intl.NumberFormat();
const DAY_MS = 86_400_000;

function midnight(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}

export function daysAgo(at) {
  return Math.round((midnight(new Date()) - midnight(new Date(at))) / DAY_MS);
}

export function shortTime(at) {
  const date = new Date(at);
  const days = daysAgo(at);
  if (days < 2) return clock.format(date);
  if (days < 7) return weekday.format(date);
  return (date.getFullYear() === new Date().getFullYear() ? dayAndMonth : withYear).format(date);
}

export function fullTime(at) {
  return full.format(new Date(at));
}

export function period(at) {
  const days = daysAgo(at);
  if (days < 1) return "Today";
  if (days < 2) return "Yesterday";
  return days < 7 ? "This week" : "Earlier";
}

/** `qwen/qwen3-235b-a22b-07-25:free` → `qwen3-235b-a22b-07-25`; whose it is and its price stand elsewhere. */
export function modelName(model) {
  return model.replace(/^[^/]*\//, "").replace(/:[^:]*$/, "");
}

export function count(n) {
  return whole.format(n);
}

export function seconds(ms) {
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  return ms < 100_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`;
}

/** Credits are US dollars at OpenRouter. An unknown cost is said to be unknown, never free. */
export function cost(usage) {
  if (usage.cost_credits === null || usage.cost_credits === undefined) return usage.is_free_model ? "free" : "cost unknown";
  const amount = Number(usage.cost_credits);
  if (amount === 0) return "free";
  return `$${amount < 0.01 ? amount.toPrecision(2) : amount.toFixed(2)}`;
}

/** `position` counts the generations that start before this one. */
export function queuePlace(position) {
  if (position === undefined || position === null) return "";
  if (position <= 0) return "next in line";
  return position === 1 ? "1 ahead" : `${count(position)} ahead`;
}

/** A code such as `rate_limited` as words. */
export function words(code) {
  return String(code).replaceAll("_", " ");
}
