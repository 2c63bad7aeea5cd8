// Brings the first marked part into sight, once a step, and no further than needed. A page is drawn from above, so the
// place is looked at until it rests; whoever scrolls meanwhile is left alone. Hover waits until the pointer moves: flow.js.
// What is said grows when a measurement ends: then it is looked at once more, for the strip may cover what is meant.
let shown = "", said = "", left = false;

export default function ({ data }) {
  const here = location.pathname + data.step;
  if (shown === here && said === data.said) return;
  if (shown !== here) left = false;
  [shown, said] = [here, data.said];
  const main = document.querySelector("[data-testid=stMain]"), app = document.querySelector("[data-testid=stApp]");
  const panel = innerWidth < 1200 ? ", .st-key-lesson_panel" : ""; // beside a wide page it hides nothing
  const strip = document.querySelector(`.st-key-guide_strip${panel}`);
  const until = performance.now() + 30000;
  let still = 0;
  const leave = () => { if (shown === here) left = true; };
  for (const name of ["wheel", "touchmove"]) main.addEventListener(name, leave, { once: true, passive: true });
  const look = () => {
    if (left || shown !== here || said !== data.said || performance.now() > until) return;
    const part = document.querySelector(`.st-key-part_${CSS.escape(data.parts[0])}`);
    const rests = app && app.dataset.testScriptState === "notRunning";
    still = part && !bring(main, part, strip) && rests ? still + 1 : 0;
    if (still < 4) setTimeout(look, 150);
  };
  setTimeout(look, 60);
}

/** Whether the page had to be scrolled so that the part, or its beginning, is seen. */
function bring(main, part, strip) {
  const box = part.getBoundingClientRect(), wide = strip && strip.getBoundingClientRect();
  if (!box.height) return false;
  const atBottom = wide && wide.top > innerHeight / 2;
  const top = Math.max(70, wide && !atBottom ? wide.bottom + 30 : 0), bottom = atBottom ? wide.top - 12 : innerHeight - 12;
  const away = box.top < top - 1 ? box.top - top : box.bottom > bottom + 1 ? Math.min(box.top - top, box.bottom - bottom) : 0;
  const room = away < 0 ? -main.scrollTop : main.scrollHeight - main.clientHeight - main.scrollTop;
  const by = away < 0 ? Math.max(away, room) : Math.min(away, room);
  if (Math.abs(by) < 2) return false;
  main.scrollBy({ top: by, behavior: "instant" });
  return true;
}
