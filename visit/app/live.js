// The line outlives every rerun and every page: only then is a change of it spoken. What stands there first is not.
export default function ({ data }) {
  let line = document.getElementById("visit-live");
  if (!line) {
    line = document.createElement("div");
    line.id = "visit-live";
    line.setAttribute("role", "status"); // polite
    line.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap";
    document.body.append(line);
  }
  if (line.textContent !== data.text) line.textContent = data.text;
}
