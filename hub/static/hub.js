// The hub's REST API, called with this page's own proof (`_xsrf`).
const page = document.body.dataset;

/** Call the API; resolves to the answer, rejects with the hub's own words. */
export async function call(method, path, body) {
  const answer = await fetch(page.api + path, {
    method,
    credentials: "same-origin",
    headers: { "X-XSRFToken": page.xsrf, Accept: "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok) return answer;
  let reason = `the portal answered ${answer.status}`;
  try { reason = (await answer.json()).message || reason; } catch { /* not JSON */ }
  throw new Error(reason);
}

/** The API's path of a server, "" being a person's first one. */
export function serverPath(user, name) {
  const person = `/users/${encodeURIComponent(user)}`;
  return name ? `${person}/servers/${encodeURIComponent(name)}` : `${person}/server`;
}

/** Write a length of time as people say it. */
export function spell(seconds) {
  const minutes = Math.round(Math.abs(seconds) / 60);
  if (minutes < 1) return "less than a minute";
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.round(hours / 24)} days`;
}

/** Turn the page's times into this person's own, and into "how long". */
export function tellTimes(root = document) {
  for (const item of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(item.dateTime);
    const seconds = (moment - Date.now()) / 1000;
    const day = moment.toDateString() === new Date().toDateString() ? {} : { month: "short", day: "numeric" };
    const clock = moment.toLocaleString([], { hour: "2-digit", minute: "2-digit", ...day });
    const distance = seconds > 0 ? `in ${spell(seconds)}` : seconds > -60 ? "just now" : `${spell(seconds)} ago`;
    item.textContent = `${clock} (${distance})`;
    item.title = moment.toLocaleString();
  }
}
