// The drawer of an operation: who requested it and why, what is missing, and each instance with the server's sentence.

import {createDrawer} from '../drawer.js';
import {listItems, make, setText} from '../elements.js';
import {sayClock} from '../words.js';
import {isRunning} from './states.js';
import {createTargets} from './targets.js';
import {sayFigures, sayTitle, sayWhen} from './words.js';

export function createOperationDetails() {
    const heading = make('h2', {id: 'operation-drawer-title', tabindex: -1});
    const begun = make('span', {});
    const by = make('bdi', {});
    const when = make('span', {id: 'operation-when'});
    const reason = make('bdi', {});
    const figures = make('p', {id: 'operation-figures'});
    const notes = make('ul', {id: 'operation-notes', class: 'sentences'});
    const others = make('span', {});
    const lists = make('div', {id: 'operation-targets', role: 'group', 'aria-label': 'Instances of the operation'},
        makeList('trouble'), makeList('under-way'), makeList('confirmed'), makeList('skipped'));
    const element = make('aside', {id: 'operation-drawer', class: 'drawer', hidden: '', 'aria-labelledby': heading.id},
        make('div', {class: 'drawer-head'}, heading,
            make('button', {type: 'button', class: 'is-plain', 'aria-label': 'Close', 'data-close': ''}, '×')),
        make('div', {class: 'drawer-content'},
            make('p', {class: 'quiet'}, begun, by, when, ' ', reason),
            figures,
            notes,
            lists,
            make('p', {}, make('a', {href: '/admin/instances/operation/'}, 'All operations ', others))));
    document.body.append(element);
    const drawer = createDrawer(element, {onClose: () => {}});
    const targets = createTargets();

    function render(shown, warnings, running) {
        setText(heading, sayTitle(shown.kind, shown.isWholeAccount));
        setText(by, shown.requestedBy ? ` by ${shown.requestedBy}` : '');
        setText(reason, shown.reason ? `“${shown.reason}”` : '');
        setText(figures, isRunning(shown) ? '' : sayFigures(shown));
        setText(others, running ? `(${running} more running)` : '');
        const sentences = [...new Set([...shown.notes, ...isRunning(shown) ? warnings : []])];
        const look = sentences.join('\n');
        if (notes.dataset.shown !== look) {
            notes.dataset.shown = look;
            listItems(notes, sentences);
        }
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
        get isOpen() {
            return drawer.isOpen;
        },
    };
}

function makeList(name) {
    const title = name === 'under-way' ? 'In progress' : name === 'skipped' ? 'Skipped' : '';
    return make('div', {hidden: ''},
        make('h3', {}, make('span', {id: `targets-${name}-title`}, title), ': ', make('span', {class: 'size'})),
        make('ul', {id: `targets-${name}`, class: 'targets'}));
}
