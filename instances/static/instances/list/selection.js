// The selection: the boxes of the rows and of the heading, and the bar with its counts and buttons.

import {find, make, set, setDisabled, setText} from '../elements.js';
import {capitalize, PAST, sayCost, sayNumber} from '../words.js';
import {removeUnknown} from './inventory.js';

// `canRequest(kind, one)` says whether an operation of that kind can include the instance; `preview(kind, ids, number)`
// opens the dialog.
export function createSelection({table, inventory, canRequest, preview, render}) {
    const words = make('p', {role: 'status'});
    const buttons = ['start', 'stop', 'restart'].map(kind => makeButton('act-on-selected', '', {'data-kind': kind}));
    const tools = make('div', {class: 'selection-buttons'},
        ...buttons, makeButton('annotate-selected', 'Set owner…'), makeButton('clear-selection', 'Clear selection'));
    const bar = make('div', {id: 'selection', 'data-needs': 'operator', role: 'group', 'aria-label': 'The selected instances'},
        words, tools, makeForm());
    const allBox = document.getElementById('select-all');
    const selected = new Set(); // ids
    let matching = []; // the instances that match the filter, in the order shown, on all pages
    let lastSelected = ''; // where a range by Shift begins

    table.before(bar);

    function updateRow(row, one) {
        const box = find(row, '.col-select input');
        row.classList.toggle('is-selected', selected.has(one.id));
        set(box, 'checked', selected.has(one.id));
        set(box, 'ariaLabel', `Select ${one.name || one.id}`);
    }

    function renderBar(found, shown) {
        matching = found;
        const chosen = listSelected();
        setText(words, describe(chosen, shown));
        bar.classList.toggle('is-shown', selected.size > 0);
        document.documentElement.classList.toggle('has-selection', selected.size > 0);
        set(tools, 'hidden', !selected.size);
        for (const button of buttons) {
            const {kind} = button.dataset;
            const possible = chosen.filter(one => canRequest(kind, one)).length;
            setText(button, `${capitalize(kind)} ${sayNumber(possible)}`);
            set(button, 'title', possible ? '' : `None of the selected instances can be ${PAST[kind]} now.`);
            setDisabled(button, !possible);
        }
        const number = selected.size ? matching.filter(one => selected.has(one.id)).length : 0;
        set(allBox, 'hidden', false);
        set(allBox, 'checked', number > 0 && number === matching.length);
        set(allBox, 'indeterminate', number > 0 && number < matching.length);
        set(allBox, 'ariaLabel', `Select all ${sayNumber(matching.length)} that match`);
    }

    function describe(chosen, shown) {
        if (!chosen.length) {
            return '';
        }
        const matches = new Set(matching);
        const onPage = new Set(shown);
        const hidden = chosen.filter(one => !matches.has(one)).length;
        const elsewhere = chosen.filter(one => matches.has(one) && !onPage.has(one)).length;
        return [
            `${sayNumber(chosen.length)} selected · ${sayCosts(chosen)}`,
            hidden && `${sayNumber(hidden)} of them hidden by the filter`,
            elsewhere && `${sayNumber(elsewhere)} on other pages`,
        ].filter(Boolean).join(', ');
    }

    function sayCosts(chosen) {
        const unknown = chosen.filter(one => one.costPerHour === null).length;
        const sum = chosen.reduce((total, one) => total + (one.costPerHour || 0), 0);
        return unknown === chosen.length ? 'price unknown' : `${sayCost(sum)}${unknown ? ` + ${sayNumber(unknown)} unknown` : ''}`;
    }

    function listSelected() {
        return selected.size ? inventory.instances.filter(one => selected.has(one.id)) : [];
    }

    function countPossible(kind) {
        return listSelected().filter(one => canRequest(kind, one)).length;
    }

    function select(ids, isSelected) {
        for (const id of ids) {
            selected[isSelected ? 'add' : 'delete'](id);
        }
        render();
    }

    function selectOne(box, row, event) {
        const {id} = row.dataset;
        const [from, to] = [lastSelected, id].map(end => matching.findIndex(one => one.id === end)).sort((a, b) => a - b);
        lastSelected = id;
        const range = event.shiftKey && from >= 0 ? matching.slice(from, to + 1) : [];
        select(range.length ? range.map(one => one.id) : [id], box.checked);
    }

    function clear() {
        selected.clear();
        render();
        allBox.focus();
    }

    return {
        updateRow,
        renderBar,
        listIds: () => [...selected],
        // Returns whether there was something to clear.
        takeBack(element) {
            // In a drawer the key closes that.
            if (!selected.size || element.closest('.drawer')) {
                return false;
            }
            selected.clear();
            render();
            return true;
        },
        forgetUnknown: isKnown => removeUnknown(selected, isKnown),
        actions: {
            select: selectOne,
            'select-all': box => select(matching.map(one => one.id), box.checked),
            'clear-selection': clear,
            'act-on-selected': ({dataset: {kind}}) => preview(kind, [...selected], countPossible(kind)),
        },
    };
}

function makeButton(action, words, attributes) {
    return make('button', {type: 'button', 'data-do': action, ...attributes}, words);
}

// The form that annotation.js owns.
function makeForm() {
    const field = (name, words) => make('label', {}, words, ' ', make('input', {name, maxlength: 100, autocomplete: 'off'}));
    return make('form', {id: 'selection-annotation', 'data-submit': 'annotate-selected-now', novalidate: '', hidden: ''},
        field('owner', 'Owner'), field('project', 'Project'), make('button', {type: 'submit'}, 'Save'),
        makeButton('annotate-selected-cancel', 'Cancel'));
}
