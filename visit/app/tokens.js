export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.tokens');
  const old = root.version === data.version ? root.scrollTop : null;
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  root.setAttribute('aria-label', data.label);
  const chips = data.tokens.map(([text, kind, title, breaks], pos) => {
    const meant = data.meant.includes(pos) ? ' meant' : '';
    const chip = make('span', `token ${kind}${meant}`), on = pos === data.chosen;
    if (kind === 'start' || kind === 'control') {
      const sign = make('i', '', kind === 'start' ? 'anchor' : 'data_object');
      sign.setAttribute('aria-hidden', 'true');
      chip.append(sign);
    }
    const outer = kind === '' ? /^([·␣]*)(.*?)([·⏎␣⇥]*)$/s.exec(text) : null;
    if (outer) chip.append(make('s', '', outer[1]), make('bdi', '', outer[2]), make('s', '', outer[3]));
    else chip.append(make('bdi', '', text));
    chip.setAttribute('role', 'radio');
    chip.setAttribute('aria-label', text);
    chip.setAttribute('aria-checked', String(on));
    chip.title = `position ${pos}${title}`;
    chip.tabIndex = on ? 0 : -1;
    chip.onclick = () => { if (!on) setTriggerValue('pick', pos); };
    return [chip, breaks];
  });
  const flow = [];
  for (const [chip, breaks] of chips) { flow.push(chip); if (breaks) flow.push(make('br')); }
  const focused = root.contains(root.getRootNode().activeElement);
  root.replaceChildren(...flow);
  root.onkeydown = (event) => {
    const all = chips.map(([chip]) => chip), at = all.indexOf(root.getRootNode().activeElement);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0,
      End: all.length - 1 }[event.key];
    if (at < 0) return;
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); all[at].click(); return; }
    if (to === undefined) return;
    event.preventDefault();
    all[Math.max(0, Math.min(all.length - 1, to))].focus();
  };
  const on = chips[data.chosen][0];
  if (focused) on.focus({ preventScroll: true });
  const top = on.offsetTop - root.offsetTop; // at first, and when chosen elsewhere, the token is in sight
  root.scrollTop = old ?? 0;
  if (top < root.scrollTop || top + on.offsetHeight > root.scrollTop + root.clientHeight)
    root.scrollTop = Math.max(0, top - root.clientHeight / 2);
  const meant = root.querySelector('.meant');
  if (meant && root.meant !== String(data.meant)) meant.scrollIntoView({ block: 'nearest' });
  root.meant = String(data.meant);
  root.version = data.version;
  root.onscroll = () => {
    root.classList.toggle('above', root.scrollTop > 6);
    root.classList.toggle('below', root.scrollTop + root.clientHeight < root.scrollHeight - 6);
  };
  root.onscroll();

  // the best guess and the words asked about; the other guesses on request
  const next = parentElement.querySelector('.following');
  next.setAttribute('aria-label', 'What comes next');
  const bar = data.following.map(([text, prob, percent, role], n) => {
    const word = make('button', `word ${role}${data.next && role === 'target' ? ' meant' : ''}`);
    if (role === 'against') word.append(make('i', '', 'not'));
    word.append(make('bdi', '', text), make('b', '', percent));
    word.style.setProperty('--share', `${100 * prob}%`);
    word.title = { target: 'the target: what the page is about', against: 'the distractor' }[role] ?? 'make it the target';
    word.setAttribute('aria-pressed', String(role === 'target'));
    word.onclick = () => { if (role === '') setTriggerValue('take', n); };
    return word;
  });
  const more = make('button', 'more'), extra = bar.filter((word, n) => n > 0 && data.following[n][3] === '');
  more.hidden = !extra.length;
  const show = () => {
    extra.forEach((word) => { word.hidden = !root.opened; });
    more.textContent = root.opened ? 'fewer' : `${extra.length} more`;
    more.title = root.opened ? '' : 'the next most probable words';
    more.setAttribute('aria-expanded', String(Boolean(root.opened)));
  };
  more.onclick = () => { root.opened = !root.opened; show(); };
  show();
  next.replaceChildren(make('span', 'says', '→'), ...bar, more);
}
