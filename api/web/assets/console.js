// Start: finds the token, or asks for one, and runs the console with it.

import { readToken } from "./api.js";
import { App } from "./app.js";

const $ = (id) => document.getElementById(id);
const STORED = "balas.token";
let app = null;
let used = false;

/** Takes the token out of the address, so that it is neither bookmarked nor shared. */
function tokenFromAddress() {
  const params = new URLSearchParams(location.hash.slice(1));
  const token = params.get("token");
  if (token === null) return null;
  params.delete("token");
  const rest = params.toString();
  history.replaceState(null, "", location.pathname + (rest && `#${rest}`));
  return token.trim();
}

function showGate(reason) {
  localStorage.removeItem(STORED);
  app?.stop();
  app = null;
  document.title = "Balas";
  $("console").hidden = true;
  $("gate").hidden = false;
  $("gate-reason").hidden = !reason;
  $("gate-reason").textContent = reason;
  $("token").focus();
}

function enter(token) {
  const holder = readToken(token);
  if (!holder || holder.expired) {
    showGate(holder ? "That token has expired. Make a new one." : "That is not a token: it should be three parts joined by dots.");
    return;
  }
  localStorage.setItem(STORED, token);
  // One page serves one token; the next one starts with a fresh page.
  if (used) {
    location.reload();
    return;
  }
  $("gate").hidden = true;
  $("console").hidden = false;
  used = true;
  app = new App(token, holder, () => showGate("The API no longer accepts that token. Make a new one."));
  app.start();
  app.route();
}

$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  enter(token);
});
$("leave").addEventListener("click", () => showGate(""));
addEventListener("hashchange", () => {
  const token = tokenFromAddress();
  if (token) enter(token);
  else app?.route();
});

const token = tokenFromAddress() || localStorage.getItem(STORED);
if (token) enter(token);
else showGate("");
