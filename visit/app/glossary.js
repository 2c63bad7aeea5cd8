// The address may name a term (glossary#lens): it is brought into view and marked.
export default function ({ parentElement }) {
  const root = parentElement.querySelector('.glossary');
  const show = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    for (const old of root.querySelectorAll('.here')) old.classList.remove('here');
    const place = name && [...root.querySelectorAll('[id]')].find((part) => part.id === name);
    if (!place) return;
    place.classList.add('here');
    place.scrollIntoView({ block: 'start' });
    place.focus({ preventScroll: true });
  };
  for (const link of root.querySelectorAll('a')) {
    link.onclick = (event) => {
      event.preventDefault();
      history.replaceState(history.state, '', location.pathname + location.search + link.getAttribute('href'));
      show();
    };
  }
  requestAnimationFrame(show);
  addEventListener('hashchange', show);
  return () => removeEventListener('hashchange', show);
}
