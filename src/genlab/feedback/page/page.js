// Shows what the server names next, and sends judgments. What models wrote reaches the page as text nodes alone.
"use strict";

const get = (id) => document.getElementById(id);
let state = null; // what is shown
let waiting = true; // for the server, or for pictures and videos: no judgment now
let since = 0; // when it was shown

const choices = () => (state.rate
  ? state.ratings.map((rating) => [String(rating), { rating }, `${rating}`])
  : [["1", { choice: "left" }, "Left is better"], ["0", { choice: "tie" }, "Tie"], ["2", { choice: "right" }, "Right is better"]]);

function wait(yes) {
  waiting = yes;
  for (const button of get("choices").children) button.setAttribute("aria-disabled", yes);
}

function problem(text) {
  get("problem").textContent = text;
  get("problem").hidden = !text;
}

function side(content, place) {
  const box = document.createElement("section");
  const name = state.rate ? "Sample" : place ? "Right" : "Left";
  box.className = "side";
  if (!state.rate) box.dataset.key = place + 1; // on a phone, left is above
  box.dir = "auto";
  box.tabIndex = 0;
  box.setAttribute("aria-label", name);
  if (content.video != null) {
    const video = document.createElement("video");
    Object.assign(video, { controls: true, loop: true, muted: true, playsInline: true, preload: "auto", src: content.video });
    video.setAttribute("aria-label", `${name} video`);
    box.append(video);
  } else if (content.picture == null) box.append(content.text);
  else {
    const picture = document.createElement("img");
    picture.alt = `${name} picture`;
    picture.src = content.picture;
    box.append(picture);
  }
  return box;
}

const videos = () => [...get("sides").querySelectorAll("video")];
const play = (video) => video.play().catch(() => {}); // a browser may want to be asked by a key first

function loaded(video) {
  return new Promise((done, failed) => {
    video.addEventListener("loadeddata", done);
    video.addEventListener("error", failed);
  });
}

// All stop, or all begin anew together.
function playOrStop() {
  const playing = videos().filter((video) => !video.paused);
  for (const video of videos()) {
    video.pause();
    if (playing.length) continue;
    video.currentTime = 0;
    play(video);
  }
}

async function show(next) {
  state = next;
  get("count").textContent = `${state.done} of ${state.of} judged`;
  get("progress").max = state.of;
  get("progress").value = state.done;
  const [same, of] = state.agreed;
  get("agreement").textContent = of ? `same judgment when shown again: ${same} of ${of}` : "";
  const finished = state.showing == null;
  for (const id of ["sides", "choices", "remarks"]) get(id).hidden = finished;
  get("undo").hidden = !state.done;
  get("play").hidden = true;
  get("finished").hidden = !finished;
  get("prompt").hidden = finished || !state.prompt;
  get("prompt").textContent = state.prompt ?? "";
  get("sides").replaceChildren(...(finished ? [] : state.sides.map(side)));
  get("remark").value = "";
  get("remark").maxLength = state.longest;
  if (finished) {
    get("report").replaceChildren(...state.report.map((line) => {
      const item = document.createElement("li");
      item.append(line);
      return item;
    }));
    wait(false);
    return;
  }
  if (!get("choices").children.length) get("choices").append(...choices().map(([key, answer, text]) => {
    const button = document.createElement("button");
    const hint = document.createElement("kbd");
    button.type = "button";
    if (key === "0") button.className = "tie";
    hint.append(key);
    button.append(...(state.rate ? [hint] : [text, " ", hint]));
    button.addEventListener("click", () => judge(answer));
    return button;
  }));
  wait(true);
  const pictures = [...get("sides").querySelectorAll("img, video")];
  try {
    await Promise.all(pictures.map((picture) => (picture.decode ? picture.decode() : loaded(picture))));
  } catch {
    problem("A sample cannot be shown. Load the page again.");
    return;
  }
  for (const picture of pictures) picture.classList.toggle("small", (picture.naturalWidth ?? picture.videoWidth) < 256);
  get("play").hidden = !videos().length;
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) for (const video of videos()) play(video);
  since = performance.now();
  wait(false);
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The program does not answer. Start it again, and open its new address: it asks what is not saved yet.");
  }
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

function judge(answer) {
  if (waiting || state.showing == null) return; // a double click
  const seconds = Math.min(86400, Math.round(performance.now() - since) / 1000);
  send("judge", { showing: state.showing, ...answer, seconds, remark: get("remark").value });
}

function undo() {
  if (!waiting && state.done) send("undo", { showing: state.done - 1 });
}

async function send(address, told) {
  wait(true);
  const headers = { "Content-Type": "application/json" };
  try {
    const next = await ask(address, { method: "POST", headers, body: JSON.stringify(told) });
    problem("");
    await show(next);
  } catch (error) {
    problem(error.message);
    wait(false);
  }
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || state == null) return;
  if (event.target === get("remark")) {
    if (event.key === "Escape") get("remark").blur();
    return;
  }
  if (event.repeat) return;
  if (event.key === "r" || event.key === "R") {
    event.preventDefault();
    get("remark").focus();
    return;
  }
  if (event.key === "p" || event.key === "P") {
    playOrStop();
    return;
  }
  if (event.key === "u" || event.key === "U" || event.key === "Backspace") {
    event.preventDefault();
    undo();
    return;
  }
  const found = choices().find(([key]) => key === event.key);
  if (found) judge(found[1]);
});

get("play").addEventListener("click", playOrStop);
get("undo").addEventListener("click", undo);
ask("state").then(show).catch((error) => problem(error.message));
