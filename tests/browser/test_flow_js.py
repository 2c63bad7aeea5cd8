"""The live flow graph in a real browser: hover, click, keys, touch, reruns, and what hostile text cannot do."""

from __future__ import annotations

import pytest
from graphs import HOSTILE, change, make_graph

from visit.drawing.draw import component_source, flow_data
from visit.files.flow_page import flow_html, script_json


@pytest.fixture
def page(chromium):
    """A page of 1,200 × 800 pixels that fails its test for every error on it."""
    context = chromium.new_context(viewport={"width": 1200, "height": 800}, has_touch=True)
    found = context.new_page()
    errors = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    yield found
    context.close()
    assert not errors, errors


HARNESS = """
const count = { listeners: 0 };
const add = EventTarget.prototype.addEventListener;
EventTarget.prototype.addEventListener = function (...a) { count.listeners++; return add.apply(this, a); };
window.count = count;
window.sent = [];
window.mount = (data) => window.flow({ data, parentElement: document.body,
  setStateValue: (name, value) => window.sent.push([name, value]),
  setTriggerValue: (name, value) => window.sent.push([name, value]) });
"""


def show(page, data):
    """Mount the component as Streamlit does."""
    source = component_source()
    script = HARNESS + source["js"].replace("export default function flow", "window.flow = flow;\nfunction flow")
    page.set_content(f"<style>{source['css']}</style>{source['html']}<script type='module'>{script}</script>")
    page.wait_for_function("() => Boolean(window.mount)")
    page.evaluate("data => window.mount(data)", data)


def rerun(page, data):
    page.evaluate("data => window.mount(data)", data)


def node(page, data, node_id):
    """The group of a node."""
    number = [entry["id"] for entry in data["nodes"]].index(node_id)
    return page.locator(f".nodes [data-i='{number}']")


def lit(page, data):
    """Ids of the nodes that stand out, or None when nothing is dimmed."""
    numbers = page.evaluate(
        "document.querySelector('svg.dim') && [...document.querySelectorAll('.lit [data-i]')].map(e => +e.dataset.i)"
    )
    return None if numbers is None else {data["nodes"][i]["id"] for i in numbers}


def selected(page, data):
    numbers = page.evaluate("[...document.querySelectorAll('.nodes .sel')].map(e => +e.dataset.i)")
    return [data["nodes"][i]["id"] for i in numbers]


@pytest.fixture
def words(page):
    data = flow_data(make_graph(layers=(8, 9)), "words")
    show(page, data)
    return data


def test_hover_lights_the_path_and_leaving_restores(page, words):
    node(page, words, "L8.head1").hover()
    assert lit(page, words) == {
        "L8.resid_pre", "L8.head1", "L8.head1.value1", "L8.head1.value3", "L8.head1.rest", "L8.attn_out",
        "L8.resid_mid", "L8.resid_post", "L9.resid_mid", "L9.resid_post", "ln_final", "logits",
    }  # fmt: skip
    page.mouse.move(5, 790)
    assert lit(page, words) is None


def test_hover_over_a_state_lights_what_it_is_made_of_and_what_reads_it(page, words):
    node(page, words, "L8.resid_mid").hover()
    found = lit(page, words)
    assert {"L8.attn_out", "L8.head0", "L8.head0.value0", "L8.mlp_value7", "L8.mlp_out", "L9.resid_post"} <= found
    assert not any(i.startswith("L9.head") for i in found)


def test_click_selects_reports_and_opens_the_inspector(page, words):
    node(page, words, "L9.head1.value3").click()
    assert selected(page, words) == ["L9.head1.value3"]
    assert page.evaluate("window.sent") == [["selected", "L9.head1.value3"]]
    inspector = page.locator(".inspector")
    assert inspector.locator("h3").inner_text() == "Memory value of head L9 H1 from position 3 (·John)"
    assert "W_O[1]" in inspector.locator("p").first.inner_text()
    entry = next(n for n in words["nodes"] if n["id"] == "L9.head1.value3")
    assert inspector.locator(".row bdi").all_inner_texts()[:10] == entry["w"]
    facts = dict(zip(inspector.locator("dt").all_inner_texts(), inspector.locator("dd").all_inner_texts(), strict=True))
    assert set(facts) >= {"entropy in bits", "norm", "coefficient"} and float(facts["contribution in logits"])
    assert inspector.locator("dt").first.get_attribute("title").startswith("1 + the number of words")
    page.locator(".inspector .close").click()
    assert selected(page, words) == [] and inspector.is_hidden()


def test_a_clicked_node_stays_in_view_when_the_inspector_takes_its_room(page, words):
    page.evaluate("document.querySelector('.frame').scrollLeft = 99999")
    chosen = node(page, words, "logits")
    chosen.click()
    frame, box = page.locator(".frame").bounding_box(), chosen.bounding_box()
    assert page.locator(".inspector").is_visible() and frame["width"] < 900
    assert frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"]


def test_what_scrolls_under_a_resting_pointer_does_not_light_up(page):
    data = flow_data(make_graph(layers=(7, 8, 9), heads=14), "words")
    show(page, data)
    page.evaluate("document.querySelector('.visit').style.marginTop = '900px'")
    box = page.locator(".frame").bounding_box()
    page.mouse.move(box["x"] + 420, 400)  # above the drawing, where a sentence would be
    page.evaluate("window.scrollTo(0, 900)")
    page.wait_for_timeout(300)
    under = page.evaluate(f"Boolean(document.elementFromPoint({box['x'] + 420}, 400).closest('.frame'))")
    assert under and lit(page, data) is None
    node(page, data, "L7.head1").hover()
    assert "L7.head1" in lit(page, data)


def test_a_selection_is_never_dimmed(page, words):
    node(page, words, "L9.mlp_value7").click()
    node(page, words, "L8.head1.value1").hover()
    assert {"L9.mlp_value7", "L8.head1"} <= lit(page, words) and "L8.head0.value0" not in lit(page, words)
    rerun(page, words | {"selected": "L8.head0.value0"})  # a sentence of the page chooses another one meanwhile
    assert "L8.head0.value0" in lit(page, words)


@pytest.mark.parametrize("difference", [(("prompt", "one"), ("prompt", "two")), (("model", "one"), ("model", "two"))])
def test_a_new_drawing_is_centred_on_its_open_block(page, difference):
    graphs = [make_graph(layers=tuple(range(30)), seed=seed) for seed in (0, 1)]
    for graph, (name, value) in zip(graphs, difference, strict=True):
        graph.meta[name] = value
    show(page, flow_data(graphs[0], {22: "words"}))
    where = "document.querySelector('.frame').scrollLeft"
    for graph, opened in ((graphs[0], 22), (graphs[1], 6), (graphs[0], 22)):
        data = flow_data(graph, {opened: "words"})
        rerun(page, data)
        frame, title = page.locator(".frame").bounding_box(), page.get_by_text(f"block {opened}").bounding_box()
        assert frame["x"] <= title["x"] < frame["x"] + 300
        out = node(page, data, f"L{opened}.mlp_out").bounding_box()
        assert out["x"] + out["width"] <= frame["x"] + frame["width"]
    page.evaluate(where + " += 40")
    before = page.evaluate(where)
    rerun(page, flow_data(graphs[0], {22: "words"}, color_by="probability"))  # the same graph in other colours
    assert page.evaluate(where) == before
    rerun(page, flow_data(graphs[0], {2: "words"}))  # another block is opened, from outside the drawing
    assert page.locator(".frame").bounding_box()["x"] <= page.get_by_text("block 2", exact=True).bounding_box()["x"]


def test_whole_words_only_leaves_pieces_out_of_the_lists_and_says_how_many(page):
    graph = make_graph()
    change(graph, "L9.head1", tokens=(" ", "ation", " Paris", "\\xe6", ",", " Rome"))
    data = flow_data(graph, "words")
    show(page, data | {"selected": "L9.head1"})
    rows = page.locator(".inspector .row bdi")
    assert rows.all_inner_texts()[:6] == ["␣", "…ation", "·Paris", "\\xe6", ",", "·Rome"]
    assert [n for n in range(6) if "q" in (rows.nth(n).get_attribute("class") or "")] == [0, 3]
    assert "␣ a space" in page.locator(".legend").inner_text()
    page.get_by_label("Find a word").fill("ation")
    assert page.locator(".found").inner_text() == "1 node"
    rerun(page, data | {"selected": "L9.head1", "whole": 1})
    assert rows.all_inner_texts()[:2] == ["·Paris", "·Rome"]
    assert "4 of 6 left out" in page.locator(".inspector").inner_text()


def test_missing_numbers_are_a_dash_with_a_reason(page):
    data = flow_data(make_graph(), "everything")
    show(page, data)
    node(page, data, "L9.head0.query").click()
    assert "– (adds nothing to the stream)" in page.locator(".inspector dl").inner_text()


def test_the_same_data_again_change_nothing(page, words):
    page.evaluate("window.before = document.querySelector('svg')")
    rerun(page, words)
    assert page.evaluate("window.before === document.querySelector('svg')")
    assert page.locator(".visit .bar").count() == 1 and page.locator(".frame > svg").count() == 1


def test_new_data_keep_selection_zoom_and_place(page, words):
    node(page, words, "L9.head1").click()
    page.get_by_label("zoom in").click()
    page.evaluate("document.querySelector('.frame').scrollLeft = 1100")
    before = node(page, words, "L9.head1").bounding_box()
    data = flow_data(make_graph(layers=(8, 9)), {8: "states", 9: "words"})
    rerun(page, data)
    assert selected(page, data) == ["L9.head1"]
    assert page.locator(".bar button").nth(1).inner_text() == "120 %"
    after = node(page, data, "L9.head1").bounding_box()
    assert after["x"] == pytest.approx(before["x"], abs=2)
    assert page.locator(".inspector h3").inner_text() == "Head L9 H1 at position 5"


def test_a_selected_node_that_disappears_is_let_go(page, words):
    node(page, words, "L8.head1.value1").click()
    rerun(page, flow_data(make_graph(layers=(8, 9)), "states"))
    assert page.locator(".inspector").is_hidden() and page.locator(".sel").count() == 0


def test_reruns_add_no_listeners_and_no_elements(page, words):
    other = flow_data(make_graph(layers=(8, 9), seed=3), "words")
    rerun(page, other)
    before = page.evaluate("[count.listeners, document.querySelectorAll('*').length]")
    for _ in range(5):
        rerun(page, words)
        rerun(page, other)
    assert page.evaluate("[count.listeners, document.querySelectorAll('*').length]") == before


def test_the_selected_node_has_a_ring_in_the_colour_of_text(page, words):
    node(page, words, "L9.head1").click()
    ring, box = (
        page.locator(".ring:not(.focus)").bounding_box(),
        node(page, words, "L9.head1").locator("rect").bounding_box(),
    )
    assert ring["x"] < box["x"] - 2 and ring["x"] + ring["width"] > box["x"] + box["width"] + 2
    style = "e => [getComputedStyle(e).stroke, getComputedStyle(e.closest('.visit')).color]"
    stroke, ink = page.locator(".ring:not(.focus)").evaluate(style)
    assert stroke == ink
    page.keyboard.press("Escape")
    assert page.locator(".ring:not(.focus)").count() == 0


def test_an_edge_fades_where_the_drawing_goes_on(page, words):
    page.wait_for_selector(".frame.after:not(.before)")
    page.evaluate("document.querySelector('.frame').scrollLeft = 300")
    page.wait_for_selector(".frame.after.before")
    page.evaluate("document.querySelector('.frame').scrollLeft = 99999")
    page.wait_for_selector(".frame.before:not(.after)")


def test_python_sets_the_selection_and_an_old_echo_does_not_turn_it_back(page, words):
    rerun(page, words | {"selected": "L8.head2"})
    assert selected(page, words) == ["L8.head2"] and page.evaluate("window.sent") == []
    node(page, words, "L9.head0").click()
    node(page, words, "L9.head1").click()
    rerun(page, words | {"selected": "L9.head0"})  # the answer to the first click comes after the second
    assert selected(page, words) == ["L9.head1"]
    rerun(page, words | {"selected": "L9.head1"})
    assert selected(page, words) == ["L9.head1"]
    rerun(page, words | {"selected": None})
    assert selected(page, words) == []
    node(page, words, "L9.head0").click()
    node(page, words, "L9.head2").click()
    rerun(page, words | {"selected": "L9.head2"})  # both clicks answered at once
    rerun(page, words | {"selected": "L9.head0"})
    assert selected(page, words) == ["L9.head0"]


def test_keyboard_has_one_stop_arrows_follow_edges_and_enter_selects(page, words):
    assert page.locator("svg [tabindex='0']").count() == 1
    page.get_by_label("zoom in").focus()
    page.keyboard.press("Tab")
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        seen.append(words["nodes"][page.evaluate("+document.activeElement.dataset.i")]["id"])
    assert seen[:2] == ["L8.resid_mid", "L8.resid_post"]
    assert seen[2] == "L8.mlp_out" and seen[3].startswith(("L8.mlp_value", "L8.mlp.rest"))
    assert seen[4].startswith("L8.mlp_value")
    assert page.locator("svg [tabindex='0']").count() == 1 and lit(page, words) is not None
    page.keyboard.press("Enter")
    assert selected(page, words) == [seen[4]]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("What neuron L8 N")
    page.keyboard.press("Escape")
    assert selected(page, words) == []


def test_tab_leads_to_what_the_page_has_chosen(page, words):
    rerun(page, words | {"selected": "L9.head1"})
    page.get_by_label("zoom in").focus()
    page.keyboard.press("Tab")
    assert words["nodes"][page.evaluate("+document.activeElement.dataset.i")]["id"] == "L9.head1"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Head L9 H1")
    assert page.locator("svg [tabindex='0']").count() == 1


def test_wheel_zooms_with_a_modifier_only_and_double_click_resets(page, words):
    size = "document.querySelector('.frame > svg').getBoundingClientRect().width"
    full = page.evaluate(size)
    page.mouse.move(400, 400)
    page.mouse.wheel(0, -100)
    assert page.evaluate(size) == full
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function(f"{size} > {full * 1.1}")
    page.mouse.dblclick(600, 300)
    assert page.evaluate(size) == full


def test_drag_pans_and_does_not_select(page, words):
    box = node(page, words, "L8.head1").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] - 180, box["y"] + 8, steps=4)
    page.mouse.up()
    assert page.evaluate("document.querySelector('.frame').scrollLeft") == pytest.approx(200, abs=2)
    assert selected(page, words) == []


def test_column_names_stay_while_rows_scroll(page):
    data = flow_data(make_graph(heads=14), "words")
    show(page, data)
    page.evaluate("document.querySelector('.frame').scrollTop = 400")
    page.wait_for_selector(".columns.pinned")
    frame = page.locator(".frame").bounding_box()
    name = page.locator(".columns text").first.bounding_box()
    assert frame["y"] <= name["y"] <= frame["y"] + 20


def test_a_tap_lights_and_selects_and_a_finger_scrolls_the_page(page, words):
    node(page, words, "L8.head1").tap()
    assert selected(page, words) == ["L8.head1"] and "L8.attn_out" in lit(page, words)
    assert page.evaluate("getComputedStyle(document.querySelector('.frame > svg')).touchAction") == "auto"


def test_search_lights_every_node_with_the_word(page, words):
    page.locator("input").fill("mary")
    expected = {n["id"] for n in words["nodes"] if {"·Mary", "Mary"} & set(n["w"])}
    assert lit(page, words) == expected and expected
    assert page.locator(".found").inner_text() == f"{len(expected)} nodes"
    page.locator("input").fill('" the"')
    assert lit(page, words) == {n["id"] for n in words["nodes"] if "·the" in n["w"]}
    page.locator("input").fill("nosuchword")
    assert lit(page, words) == set() and page.locator(".found").inner_text() == "0 nodes"
    page.locator("input").fill("")
    assert lit(page, words) is None


def set_contributions(graph, numbers):
    """Give every edge into the listed nodes its contribution, and the nodes their sums."""
    for target, parts in numbers.items():
        for n, edge in enumerate(graph.links):
            if edge.target == target and edge.kind in ("add", "residual"):
                graph.links[n] = edge._replace(contribution=parts.get(edge.source, 0.0))
        change(graph, target, contribution=sum(parts.values()))


def test_start_here_follows_the_contributions(page):
    graph = make_graph()
    set_contributions(graph, {
        "L9.head1": {"L9.head1.value1": 6.0, "L9.head1.rest": -2.0},
        "L9.attn_out": {"L9.head1": 4.0, "L9.attn_bias": 1.0},
        "L9.resid_mid": {"L9.attn_out": 5.0, "L9.resid_pre": -5.0},
    })  # fmt: skip
    data = flow_data(graph, "words")
    show(page, data)
    node(page, data, "L9.resid_mid").click()
    page.locator(".start").click()
    page.mouse.move(5, 790)
    path = {"L9.resid_mid", "L9.resid_pre", "L9.attn_out", "L9.head1", "L9.head1.value1", "L9.head1.rest"}
    assert lit(page, data) == path
    rows = [row.split("\n") for row in page.locator("a.row").all_inner_texts()]
    # half is the stream's; of attention's half, a fifth is the bias, which this level hides, a quarter the head's rest
    assert rows == [
        ["Residual stream before block 9", "50 %"],
        ["Memory value of head L9 H1 from position 1 (·Mary)", "30 %"],
        ["The memory values of head L9 H1 that are not shown: 20 % of the sum", "10 %"],
        ["Attention output, block 9, parts not drawn", "10 %"],
    ]
    page.locator("a.row").nth(1).click()
    assert selected(page, data) == ["L9.head1.value1"]
    node(page, data, "L9.resid_mid").click()
    page.locator(".start").click()
    page.get_by_text("Show all again").click()
    page.mouse.move(5, 790)
    assert lit(page, data) is None


def test_drawings_of_a_group_light_up_together(page, words):
    page.evaluate(
        """([a, b]) => {
        const section = document.createElement('section');
        section.append(Object.assign(document.createElement('div'), { className: 'visit' }));
        document.body.append(section);
        window.flow({ data: b, parentElement: document.querySelector('section') });
        window.mount(a); }""",
        [words | {"group": "pair"}, flow_data(make_graph(layers=(9,)), "words", group="pair")],
    )
    node(page.locator(".visit").first, words, "L9.head1").hover()
    assert page.locator("section svg.dim .lit .n").count() > 3
    node(page.locator(".visit").first, words, "L8.head1").hover()
    assert page.locator("section svg.dim").count() == 0
    page.locator("section .nodes .n").nth(2).hover()
    assert page.locator("svg.dim").count() == 2
    page.mouse.move(1195, 2)
    assert page.locator("svg.dim").count() == 0


def test_actions_are_offered_where_someone_listens(page, words):
    node(page, words, "L8.head1").click()
    assert page.get_by_role("button", name="Hide").count() == 0
    rerun(page, words | {"actions": True})
    page.get_by_role("button", name="Hide").click()
    page.get_by_role("button", name="Always show").click()
    page.locator(".title").first.click()
    node(page, words, "L9.mlp_out").click()
    page.keyboard.press("f")
    assert [sent for sent in page.evaluate("window.sent") if sent[0] == "action"] == [
        ["action", {"do": "hide", "id": "L8.head1"}],
        ["action", {"do": "keep", "id": "L8.head1"}],
        ["action", {"do": "detail", "layer": 8}],
        ["action", {"do": "detail", "layer": 9}],
    ]
    assert page.get_by_role("button", name="Hide").count() == 0  # a state is no part of a sum that can be left out


def test_a_node_selected_by_python_is_scrolled_into_view(page):
    data = flow_data(make_graph(layers=(7, 8, 9), heads=14), "words")
    show(page, data)
    rerun(page, data | {"selected": "L9.head13.value1"})
    frame, box = page.locator(".frame").bounding_box(), node(page, data, "L9.head13.value1").bounding_box()
    assert frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"]
    assert frame["y"] <= box["y"] and box["y"] + box["height"] <= frame["y"] + frame["height"]
    assert page.evaluate("window.scrollY") == 0


def test_the_palette_follows_the_page(page, words):
    fill = "getComputedStyle(document.querySelector('.nodes .t5 rect')).fill"
    colours = {page.evaluate(fill)}
    for background in ("#101010", "#fafafa"):
        page.evaluate(f"document.body.style.setProperty('--st-background-color', '{background}')")
        wanted = "dark" if background == "#101010" else "light"
        page.wait_for_selector(f".visit.{wanted}")  # without a rerun
        colours.add(page.evaluate(fill))
    rerun(page, words | {"palette": "paper"})
    colours.add(page.evaluate(fill))
    assert len(colours) == 3


def test_words_are_large_enough_and_stay_in_their_pills(page):
    data = flow_data(
        make_graph(layers=(8, 9), words=["Internationalization", " WWWWWWWWWW", "mmmmmmmmmm"]), "everything"
    )
    show(page, data)
    sizes, outside = page.evaluate(
        """() => { const sizes = [], outside = [];
        for (const text of document.querySelectorAll('.frame svg text')) {
          sizes.push(parseFloat(getComputedStyle(text).fontSize));
          const group = text.closest('.n'); if (!group) continue;
          const box = group.firstChild.getBoundingClientRect(), own = text.getBoundingClientRect();
          if (own.left < box.left - 1 || own.right > box.right + 1) outside.push(text.textContent);
        } return [sizes, outside]; }"""
    )
    assert min(sizes) >= 11 and outside == []


@pytest.mark.parametrize("level", ["states", "words", "everything"])
def test_hostile_text_does_nothing(page, level):
    graph = make_graph(words=HOSTILE, model="<img src=x onerror=alert(1)>", prompt="".join(HOSTILE))
    page.goto("about:blank")
    page.set_content(flow_html(graph, level))
    page.wait_for_selector(".frame > svg")
    for group in page.locator(".nodes .n").all()[:12]:
        group.click()
    page.locator("input").fill("<script>alert(1)</script>")
    tags = page.evaluate("[...new Set([...document.querySelectorAll('.visit *')].map(e => e.tagName.toLowerCase()))]")
    assert not {"script", "img", "iframe", "object", "foreignobject", "a"} & set(tags)
    assert page.evaluate(
        "[...document.querySelectorAll('.visit *')].every(e => ![...e.attributes].some(a => a.name.startsWith('on')))"
    )
    assert "<script>" in page.locator(".caption").inner_text()


def test_the_table_says_the_same_as_the_drawing(page, words):
    page.get_by_text("The same as a table").click()
    page.wait_for_selector(".table tr")
    assert page.locator(".table tr").count() == 1 + len(words["nodes"])
    cells = page.locator(".table tr").nth(3).locator("td").all_inner_texts()
    entry = words["nodes"][2]
    assert cells[:2] == [entry["title"], entry["id"]] and cells[3:] == [fact[0] for fact in entry["f"]]


def test_a_drawing_that_is_not_well_formed_is_refused(page, words):
    message = page.evaluate(
        "d => { try { window.mount(d); return 'taken'; } catch (e) { return e.message; } }",
        words | {"svg": "<svg xmlns='http://www.w3.org/2000/svg'><g></svg>"},
    )
    assert "not well-formed" in message and page.locator(".frame > svg .nodes").count() == 1


def test_the_page_alone_works_offline(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    text = flow_html(make_graph(layers=(8, 9)), "words")
    page.set_content(text)
    page.locator(".nodes .n").nth(3).click()
    assert page.locator(".inspector h3").inner_text()
    assert requests == [] and len(text) < 1_000_000
    meta = page.evaluate("JSON.parse(document.getElementById('provenance').textContent)")
    assert meta["model"] == "test/model" and meta["prompt"] and meta["ledger"]["holds"]
    assert "test/model" in page.locator(".caption").inner_text()


def test_the_page_alone_refolds_without_python(page):
    page.set_content(flow_html(make_graph(layers=(8, 9)), {8: "states", 9: "words"}))
    kinds = "[...document.querySelectorAll('.nodes .n')].length"
    opened = page.evaluate(kinds)
    value = page.get_by_role("heading", name="Memory value of head L8 H1 from position 3 (·John)")
    page.locator(".title[data-layer='8']").click()  # folded before: opens at words, the other block as it is
    shown = page.locator(".bar select option:checked")
    assert shown.inner_text() == "all at words" and page.evaluate(kinds) > opened
    page.locator(".nodes .n text", has_text="←·John").first.locator("..").locator("rect").click()
    assert value.count() == 1
    page.keyboard.press("f")
    assert shown.inner_text() == "block 8 at everything" and value.count() == 1  # the selection stays
    page.locator(".bar select").select_option("all folded")
    assert page.evaluate(kinds) < opened and page.locator(".inspector").is_hidden()
    page.locator(".nodes .n").first.hover()
    assert page.locator("svg.dim .lit .n").count() > 1


def test_one_block_alone_has_every_level(page):
    page.set_content(flow_html(make_graph(), "words"))
    assert page.locator(".bar select option").all_inner_texts() == ["at words", "folded", "at everything"]
    seen = []
    for _ in range(3):
        page.locator(".title").click()
        seen.append(page.locator(".bar select option:checked").inner_text())
    assert seen == ["at everything", "folded", "at words"]
    assert "the block folded, at words and at everything" in page.locator(".caption").inner_text()


def test_data_survive_the_script_element(page):
    page.set_content(f"<script type='application/json' id='d'>{script_json(HOSTILE)}</script>")
    assert page.evaluate("JSON.parse(document.getElementById('d').textContent).length") == len(HOSTILE)
