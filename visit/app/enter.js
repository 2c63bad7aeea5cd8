export default function () {
  if (window.visitEnterRuns) return;
  window.visitEnterRuns = true;
  document.addEventListener('keydown', (event) => {
    const area = event.target.closest && event.target.closest('[class*="st-key-w_prompt"] textarea');
    const plain = event.key === 'Enter' && !event.isComposing && !event.shiftKey && !event.ctrlKey && !event.metaKey;
    if (!area || !plain || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const options = { key: 'Enter', code: 'Enter', ctrlKey: true, bubbles: true, cancelable: true };
    area.dispatchEvent(new KeyboardEvent('keydown', options));
  }, true);
}
