// Saved views: search, filters, order and columns under a name, kept in this browser. Each is a link.

import {make} from '../elements.js';
import {createStore} from '../store.js';

const MAX_VIEWS = 50;

// `getColumns()` returns the chosen columns for a link, `note(words)` says what the browser can't keep.
export function createViews({address, getColumns, note}) {
    const store = createStore('views');
    const list = make('ul', {});
    const field = make('input', {name: 'name', 'aria-label': 'Name of the present view', placeholder: 'Name of the present view', maxlength: 60, autocomplete: 'off'});
    const form = make('form', {'data-submit': 'save-view', novalidate: ''}, field, make('button', {type: 'submit'}, 'Save'));
    let views = read(); // [{name, link}], by name

    function read() {
        try {
            const kept = JSON.parse(store.read()) ?? [];
            return kept.filter(({name, link}) => typeof name === 'string' && typeof link === 'string' && link.startsWith('?'));
        } catch {
            // Another version's, or damaged.
            return [];
        }
    }

    function makeLink() {
        return address.makeLink({columns: getColumns(), page: 1});
    }

    function render() {
        const present = makeLink();
        list.replaceChildren(...views.map(({name, link}) => {
            const open = make('a', {href: link, ...link === present && {'aria-current': 'true'}}, name);
            const button = make('button', {type: 'button', class: 'is-plain', 'data-do': 'delete-view', value: name, 'aria-label': `Delete view ${name}`}, '×');
            return make('li', {}, open, button);
        }));
    }

    function write() {
        note(store.write(JSON.stringify(views)) ? '' : 'This browser keeps no settings: the views last until you leave the page.');
        render();
    }

    function save() {
        const name = field.value.trim();
        if (!name) {
            note('Enter a name for the view.');
            field.focus();
            return;
        }
        const others = views.filter(one => one.name !== name);
        if (others.length >= MAX_VIEWS) {
            note(`${MAX_VIEWS} views are the most. Delete one first.`);
            return;
        }
        views = [...others, {name, link: makeLink()}].sort((a, b) => a.name.localeCompare(b.name));
        form.reset();
        write();
    }

    function remove(button) {
        views = views.filter(one => one.name !== button.value);
        write();
        field.focus();
    }

    return {
        parts: [make('h2', {}, 'Saved views'), list, form],
        render,
        actions: {'save-view': save, 'delete-view': remove},
    };
}
