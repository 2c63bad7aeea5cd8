// A number and its "%" stay on one line: a break before the sign reads as a mistake on a phone. Here and not in the text,
// which is the same on a command line, where a hard space would be in the way of a search.
const hold = (node) => {
  const texts = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  for (let one = texts.currentNode; one; one = texts.nextNode())
    if (one.nodeType === Node.TEXT_NODE && /\d %/.test(one.data) && !one.parentElement?.closest("textarea, #visit-live"))
      one.data = one.data.replace(/(\d) %/g, "$1\u00a0%");
};

// What Streamlit hangs on the page's body (popovers, menus, dialogs) is to know that the page is dark, as its app does:
// `light-dark()` of page.css asks.
const scheme = () => {
  const app = document.querySelector("[data-testid=stApp]");
  if (app) document.documentElement.style.colorScheme = getComputedStyle(app).colorScheme;
};

// The line outlives every rerun and every page: only then is a change of it spoken. What stands there first is not.
export default function ({ data }) {
  let line = document.getElementById("visit-live");
  if (!line) {
    line = document.createElement("div");
    line.id = "visit-live";
    line.setAttribute("role", "status"); // polite
    line.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap";
    document.body.append(line);
    const app = document.querySelector("[data-testid=stApp]");
    if (app) new MutationObserver(scheme).observe(app, { attributes: true, attributeFilter: ["class"] });
    hold(document.body);
    new MutationObserver((changes) => changes.forEach((one) => (one.type === "childList"
      ? one.addedNodes.forEach(hold) : hold(one.target))))
      .observe(document.body, { childList: true, characterData: true, subtree: true });
  }
  scheme();
  if (line.textContent !== data.text) line.textContent = data.text;
}
