// The columns: which ones the visitor chose, in the address or else in this browser. Without a choice the width decides.

import {make} from '../elements.js';
import {createStore} from '../store.js';

const ALWAYS = 'name';

export function createColumns({table, address, note}) {
    const store = createStore('columns');
    const headings = [...table.tHead.querySelectorAll('[data-column]')];
    const names = headings.map(getName);
    const fieldset = make('fieldset', {}, make('legend', {}, 'Columns'));
    const resetButton = make('button', {type: 'button', 'data-do': 'reset-columns'}, 'Reset columns');

    for (const heading of headings.filter(one => getName(one) !== ALWAYS)) {
        const box = make('input', {type: 'checkbox', 'data-do': 'choose-column', value: getName(heading)});
        fieldset.append(make('label', {}, box, ` ${heading.textContent}`));
    }

    // Returns the chosen columns; null without a choice.
    function getChosen() {
        const text = address.query.columns || store.read() || '';
        const chosen = text.split(',').filter(name => names.includes(name));
        return chosen.length ? chosen : null;
    }

    function render() {
        const chosen = getChosen();
        table.classList.toggle('is-chosen', chosen !== null);
        for (const name of names) {
            table.classList.toggle(`hides-${name}`, chosen !== null && name !== ALWAYS && !chosen.includes(name));
        }
        resetButton.hidden = chosen === null;
    }

    // The boxes show what stands in the table now, whether chosen or not.
    function renderChoice() {
        for (const box of fieldset.querySelectorAll('input')) {
            box.checked = getComputedStyle(table.tHead.querySelector(`.col-${box.value}`)).display !== 'none';
        }
    }

    function choose() {
        const chosen = [ALWAYS, ...[...fieldset.querySelectorAll('input:checked')].map(box => box.value)];
        keep(names.filter(name => chosen.includes(name)).join(','));
    }

    function keep(text) {
        note(store.write(text) ? '' : "This browser keeps no settings: the columns last until you leave the page.");
        if (address.query.columns) {
            address.change({columns: ''}, {isStep: false});
        }
        render();
        renderChoice();
    }

    return {
        parts: [fieldset, resetButton],
        render,
        renderChoice,
        get value() {
            return getChosen()?.join(',') ?? '';
        },
        actions: {'choose-column': choose, 'reset-columns': () => keep('')},
    };
}

function getName(heading) {
    return heading.className.replace('col-', '');
}
