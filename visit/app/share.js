// The link to this view, a button that copies it, and its QR code. A page that came over plain http from another
// computer may not use the clipboard of `navigator`: there the field's own text is copied.
export default function ({ parentElement, data }) {
  const field = parentElement.querySelector('input');
  const button = parentElement.querySelector('button');
  const place = parentElement.querySelector('.code');
  field.value = data.link;
  field.onfocus = () => field.select();
  button.onclick = async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(data.link);
    } catch {
      field.focus();
      field.select();
      copied = document.execCommand('copy');
    }
    button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  };
  const notes = data.notes.map((note) => Object.assign(document.createElement('p'), { textContent: note }));
  parentElement.querySelector('.notes').replaceChildren(...notes);
  place.replaceChildren();
  if (!data.code) return;
  const code = new DOMParser().parseFromString(data.code, 'image/svg+xml').documentElement;
  code.setAttribute('role', 'img');
  code.setAttribute('aria-label', 'QR code of the link');
  place.append(document.adoptNode(code));
}
