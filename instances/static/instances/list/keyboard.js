// Keys for the list, and the button of their help. The current row is the one whose name has, or had last, the focus.

import {make} from '../elements.js';

const TYPING = 'input:not([type=checkbox]), textarea, select, [contenteditable]';

// `search()` focuses the search field, `help()` opens the help.
export function createKeyboard({table, search, help}) {
    const body = table.tBodies[0];
    let lastId = '';

    document.querySelector('.bar-visitor .menu-items').append(
        make('button', {type: 'button', 'data-do': 'help', 'aria-keyshortcuts': '?'}, 'Keyboard shortcuts'),
    );

    function getRows() {
        return [...body.querySelectorAll(':scope > tr[data-id] .name')].map(name => name.closest('tr'));
    }

    function getCurrent() {
        return document.activeElement.closest('#instances tr[data-id]')
            || getRows().find(row => row.dataset.id === lastId) || null;
    }

    function move(step) {
        const all = getRows();
        const at = all.indexOf(getCurrent());
        const row = all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)];
        row?.querySelector('.name').focus();
    }

    const keys = {
        '/': search,
        '?': help,
        j: () => move(1),
        k: () => move(-1),
        x: () => getCurrent()?.querySelector('.col-select input').click(),
        s: () => getCurrent()?.querySelector('[data-action=stop]')?.click(),
    };

    body.addEventListener('focusin', ({target}) => {
        lastId = target.closest('tr[data-id]')?.dataset.id ?? lastId;
        for (const row of body.querySelectorAll('.is-current')) {
            row.classList.remove('is-current');
        }
        target.closest('tr[data-id]')?.classList.add('is-current');
    });
    document.addEventListener('keydown', event => {
        const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.isComposing;
        if (isPlain && Object.hasOwn(keys, event.key) && !event.target.closest(TYPING) && !document.querySelector('dialog[open]')) {
            event.preventDefault();
            keys[event.key]();
        } else if (event.key === 'ArrowDown' && event.target.matches('[data-do=menu]')) {
            event.preventDefault();
            event.target.click();
        }
    });
}
