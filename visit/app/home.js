// A plain click on a link is taken inside the app; any other (a new tab, say) follows the address. What is pointed at
// in the words is marked in the picture, and the other way round.
export default function ({ parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.home');
  const mark = (name) => {
    for (const part of root.querySelectorAll('a.part')) part.classList.toggle('at', part.dataset.go === name);
  };
  for (const link of root.querySelectorAll('a[data-go]')) {
    link.onclick = (event) => {
      if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      setTriggerValue('go', link.dataset.go);
    };
    if (!link.classList.contains('part')) continue;
    link.onmouseenter = link.onfocus = () => mark(link.dataset.go);
    link.onmouseleave = link.onblur = () => mark('');
  }
}
