export default function ({ data, parentElement }) {
  if (parentElement.visitSeen === data.of) return;
  parentElement.visitSeen = data.of;
  const page = parentElement.ownerDocument ?? document;
  let tries = 0;
  const look = () => {
    const part = page.querySelector(`.st-key-part_${data.part}`);
    if (!part) { if (++tries < 40) setTimeout(look, 100); return; }
    const box = part.getBoundingClientRect();
    const away = window.innerWidth < 1200 ? 0.2 : 0.6;
    if (box.top < 0 || box.top > window.innerHeight * away) part.scrollIntoView({ block: 'start' });
  };
  setTimeout(look, 300);
}
