// Escape closes the dialog that this stands in, also when nothing in it has the focus: a button that makes a file is
// disabled meanwhile, the focus falls to the page, and the page's own Escape is listened to in the dialog alone.
export default function ({ parentElement }) {
  const dialog = (parentElement.host ?? parentElement).closest('[role=dialog]');
  const close = (event) => {
    if (event.key === 'Escape' && document.activeElement === document.body && dialog?.isConnected) {
      dialog.querySelector('[aria-label=Close]')?.click();
    }
  };
  document.addEventListener('keydown', close);
  return () => document.removeEventListener('keydown', close);
}
