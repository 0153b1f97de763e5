// The drawer of an operation: who requested it and why, what is missing, and each instance with the server's sentence.
// Other operations that run stand below, and take its place when they are chosen.

import {createDrawer} from '../drawer.js';
import {listItems, make, set, setText} from '../elements.js';
import {locate} from '../root.js';
import {sayClock, sayNumber} from '../words.js';
import {createButtons} from './buttons.js';
import {getTotal, isRunning} from './states.js';
import {createTargets} from './targets.js';
import {sayFigures, sayHeading, sayResult, sayTitle, sayWhen} from './words.js';

const RECORDS = '/admin/instances/operation/';

export function createOperationDetails() {
    const heading = make('h2', {id: 'operation-drawer-title', tabindex: -1});
    const buttons = createButtons(['again', 'restore', 'cancel', 'dismiss']);
    const begun = make('span', {});
    const by = make('bdi', {});
    const when = make('span', {id: 'operation-when'});
    const reason = make('bdi', {});
    const result = make('p', {});
    const figures = make('p', {id: 'operation-figures'});
    const trouble = make('p', {class: 'is-error', role: 'status'});
    const notes = make('ul', {id: 'operation-notes', class: 'sentences'});
    const others = make('ul', {class: 'sentences'});
    const othersPart = make('section', {'aria-label': 'Other operations'}, make('h3', {}, 'Also running'), others);
    const record = make('a', {}, 'Its record');
    const lists = make('div', {id: 'operation-targets', role: 'group', 'aria-label': 'Instances of the operation'},
        makeList('trouble'), makeList('under-way'), makeList('confirmed'), makeList('skipped'));
    const element = make('aside', {id: 'operation-drawer', class: 'drawer', hidden: '', 'aria-labelledby': heading.id},
        make('div', {class: 'drawer-head'}, heading,
            make('button', {type: 'button', class: 'is-plain', 'aria-label': 'Close', 'data-close': ''}, '×'),
            buttons.element),
        make('div', {class: 'drawer-content'},
            make('p', {class: 'quiet'}, begun, by, when, ' ', reason),
            result,
            figures,
            trouble,
            notes,
            lists,
            othersPart,
            make('p', {}, record, ' · ', make('a', {href: RECORDS}, 'All operations'))));
    document.body.append(element);
    const drawer = createDrawer(element, {onClose: () => {}});
    const targets = createTargets();

    // `running` are the other operations that run, `failure` says why the operation can't be read or was not cancelled.
    function render(shown, {warnings, running, failure}) {
        const isOpen = isRunning(shown);
        setText(heading, sayTitle(shown.kind, shown.isWholeAccount));
        buttons.render(shown, {isDismissible: !isOpen});
        setText(by, shown.requestedBy ? ` by ${shown.requestedBy}` : '');
        setText(reason, shown.reason ? `“${shown.reason}”` : '');
        setText(result, isOpen ? '' : sayResult(shown));
        setText(figures, isOpen ? '' : sayFigures(shown));
        setText(trouble, failure);
        set(record, 'href', locate(`${RECORDS}${encodeURIComponent(shown.id)}/change/`));
        const sentences = [...new Set([...shown.notes, ...isOpen ? warnings : []])];
        change(notes, sentences.join('\n'), () => listItems(notes, sentences));
        set(othersPart, 'hidden', !running.length);
        change(others, JSON.stringify(running.map(one => [one.id, one.counts])), () => {
            others.replaceChildren(...running.map(makeOther));
        });
        targets.render(shown);
        tick(shown);
    }

    function tick(shown) {
        setText(begun, `Started at ${sayClock(shown.createdAt)}`);
        setText(when, sayWhen(shown));
    }

    return {
        render,
        tick,
        clear: targets.clear,
        open: drawer.open,
        close: drawer.close,
        contains: one => element.contains(one),
        focus: () => heading.focus({preventScroll: true}),
        get isOpen() {
            return drawer.isOpen;
        },
    };
}

// Fills an element anew when its look has changed: a selected text and the focus stay.
function change(element, look, fill) {
    if (element.dataset.shown !== look) {
        element.dataset.shown = look;
        fill();
    }
}

function makeOther(one) {
    const words = `${sayHeading(one)}: ${sayNumber(one.counts.confirmed)} of ${sayNumber(getTotal(one))} done`;
    return make('li', {},
        make('button', {type: 'button', class: 'is-plain', 'data-do': 'operation-pick', 'data-operation': one.id}, words),
        make('bdi', {class: 'quiet'}, ` by ${one.requestedBy}`));
}

function makeList(name) {
    const title = name === 'under-way' ? 'In progress' : name === 'skipped' ? 'Skipped' : '';
    return make('div', {hidden: ''},
        make('h3', {}, make('span', {id: `targets-${name}-title`}, title), ': ', make('span', {class: 'size'})),
        make('ul', {id: `targets-${name}`, class: 'targets'}));
}
