export default function ({ data, parentElement }) {
  if (parentElement.visitSeen === data.of) return;
  parentElement.visitSeen = data.of;
  const page = parentElement.ownerDocument ?? document;
  let tries = 0;
  const look = () => {
    const part = page.querySelector(`.st-key-part_${data.part}`);
    if (!part) { if (++tries < 40) setTimeout(look, 100); return; }
    const box = part.getBoundingClientRect();
    if (box.top < 0 || box.top > window.innerHeight * 0.6) part.scrollIntoView({ block: 'start' });
  };
  setTimeout(look, 300);
}
