// A recording that is dropped anywhere on a page is opened: its dialog is asked for, and the file is given to the field
// in it, which judges and sends it as one that was chosen there. What is dropped on a field of a page is that field's.
export default function ({ setTriggerValue }) {
  const FIELD = '[data-testid=stFileUploaderDropzone]';
  const input = () => document.querySelector('[role=dialog] .st-key-recording_file input[type=file]');
  const holdsFile = (event) => event.dataTransfer?.types.includes('Files') && !event.target.closest?.(FIELD);
  const frame = (shown) => {
    const app = document.querySelector('[data-testid=stApp]');
    if (app) Object.assign(app.style, { outline: shown ? '3px dashed #0B7A75' : '', outlineOffset: shown ? '-8px' : '' });
  };
  let waits = 0;
  const give = (files) => {
    const field = input();
    if (!field) return false;
    field.files = files;
    field.dispatchEvent(new Event('change', { bubbles: true }));
    return true;
  };
  const over = (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault(); // else the browser leaves the page for the file
    frame(true);
  };
  const leave = (event) => { if (!event.relatedTarget) frame(false); };
  const drop = (event) => {
    frame(false);
    if (!holdsFile(event)) return;
    event.preventDefault();
    const files = event.dataTransfer.files;
    if (files.length !== 1 || !files[0].name.toLowerCase().endsWith('.visit') || give(files)) return;
    const kept = new DataTransfer(); // what the event holds is gone when it is over
    kept.items.add(files[0]);
    setTriggerValue('dropped', true);
    clearInterval(waits);
    const until = performance.now() + 30_000;
    waits = setInterval(() => { if (give(kept.files) || performance.now() > until) clearInterval(waits); }, 100);
  };
  const listened = { dragover: over, dragleave: leave, drop };
  for (const [name, listener] of Object.entries(listened)) document.addEventListener(name, listener);
  return () => {
    for (const [name, listener] of Object.entries(listened)) document.removeEventListener(name, listener);
  };
}
