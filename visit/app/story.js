// Sentences of pieces: one with a node is a button that selects it; a term where it is first said is dotted, and its
// definition is told on hover, focus and tap, with a link to its place in the glossary. Escape puts the note away, the
// arrow keys go to the next term.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.story'), notes = parentElement.querySelector('.notes');
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text.replace(/(\d) %/g, '$1\u00a0%'); // no line begins with "%": see live.js
    return element;
  };
  notes.replaceChildren(...Object.entries(data.notes).map(([term, { note }]) => {
    const told = make('p', '', note);
    told.id = `note-${term}`;
    return told;
  }));

  let open = null, leaving = 0;
  const close = () => {
    clearTimeout(leaving);
    if (open) { open.querySelector('.note').remove(); open.firstChild.setAttribute('aria-expanded', 'false'); }
    open = null;
  };
  const tell = (place, term) => {
    clearTimeout(leaving);
    if (open === place) return;
    close();
    open = place;
    const { name, note, anchor } = data.notes[term], box = make('span', 'note', ''), link = make('a', '', 'Glossary');
    link.href = `glossary${location.search}#${anchor}`;
    link.target = '_blank';
    link.rel = 'noopener';
    link.setAttribute('aria-label', `${name} in the glossary, in a new tab`);
    box.append(make('b', '', name), make('span', '', note), link);
    if (place.firstChild.matches(':focus-visible') && root.querySelectorAll('.term').length > 1)
      box.append(make('small', '', '← → other terms'));
    place.append(box);
    place.firstChild.setAttribute('aria-expanded', 'true');
    const word = place.firstChild.getClientRects()[0], around = root.getBoundingClientRect();
    const left = Math.max(0, Math.min(word.left - around.left, around.width - box.offsetWidth));
    const above = word.bottom + box.offsetHeight > innerHeight && word.top > box.offsetHeight;
    box.style.left = `${left}px`;
    box.style.top = `${(above ? word.top - box.offsetHeight : word.bottom) - around.top}px`;
  };
  // many terms are one stop of Tab: the arrow keys go from one to the next
  const stop = (word) => { for (const term of root.querySelectorAll('.term')) term.tabIndex = term === word ? 0 : -1; };
  const dotted = (text, term) => {
    const place = make('span', 'place', ''), word = make('button', 'term', text);
    word.type = 'button';
    word.setAttribute('aria-describedby', `note-${term}`);
    word.setAttribute('aria-expanded', 'false');
    place.append(word);
    const later = () => { leaving = setTimeout(() => { if (open === place) close(); }, 180); };
    place.onpointerenter = (event) => { if (event.pointerType === 'mouse') tell(place, term); };
    place.onpointerleave = (event) => { if (event.pointerType === 'mouse' && !place.matches(':focus-within')) later(); };
    place.onfocusout = (event) => { if (!place.contains(event.relatedTarget)) later(); };
    word.onfocus = () => tell(place, term);
    word.onclick = () => tell(place, term);
    place.onkeydown = (event) => {
      if (event.key === 'Escape') close();
      else if (event.target === word && (event.key === 'ArrowRight' || event.key === 'ArrowLeft')) {
        const terms = [...root.querySelectorAll('.term')];
        const next = terms[terms.indexOf(word) + (event.key === 'ArrowRight' ? 1 : -1)];
        event.preventDefault();
        if (next) { stop(next); next.focus(); }
      }
    };
    return place;
  };
  const said = (text, terms) => { // offsets count whole characters, as Python does
    const letters = [...text], parts = [];
    let from = 0;
    for (const [, , start, end, term] of terms) {
      parts.push(make('span', '', letters.slice(from, start).join('')));
      parts.push(dotted(letters.slice(start, end).join(''), term));
      from = end;
    }
    return [...parts, make('span', '', letters.slice(from).join(''))].filter((part) => part.textContent);
  };

  root.replaceChildren(...data.sentences.map((pieces, place) => {
    const line = make('p', '', '');
    pieces.forEach(([text, id], number) => {
      const terms = data.terms.filter((one) => one[0] === place && one[1] === number);
      if (!id) { line.append(...said(text, terms)); return; }
      const part = make('button', 'node', text);
      const meant = terms.map(([, , , , term]) => `\n${data.notes[term].name}: ${data.notes[term].note}`);
      part.title = `Show ${id} in the graph${meant.length ? '\n' : ''}${meant.join('')}`;
      part.onclick = () => setTriggerValue('pick', id);
      line.append(part);
    });
    return line;
  }));
  stop(root.querySelector('.term'));
  const outside = (event) => { if (open && !event.composedPath().includes(open)) close(); };
  addEventListener('pointerdown', outside);
  return () => removeEventListener('pointerdown', outside);
}
