export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.story');
  root.replaceChildren(...data.sentences.map((pieces) => {
    const line = document.createElement('p');
    for (const [text, id] of pieces) {
      const part = document.createElement(id ? 'button' : 'span');
      part.textContent = text;
      if (id) { part.title = 'Show ' + id + ' in the graph'; part.onclick = () => setTriggerValue('pick', id); }
      line.append(part);
    }
    return line;
  }));
}
