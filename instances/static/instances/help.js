// The dialog that lists the keyboard's shortcuts.

import {make} from './elements.js';

const SHORTCUTS = [
    ['/', 'Search'],
    ['j, k', 'Next row, previous row'],
    ['x', 'Select the row'],
    ['Enter', "Open the row's details"],
    ['s', 'Stop the instance of the row; a dialog asks first'],
    ['Escape', 'Close the details, a menu or a form'],
    ['?', 'Show this help'],
];

export function createHelp() {
    let dialog = null; // made when it is wanted

    function open() {
        dialog ||= document.getElementById('content').appendChild(makeDialog());
        if (!dialog.open) {
            dialog.showModal();
        }
    }

    return {actions: {help: open, 'close-help': () => dialog.close()}};
}

function makeDialog() {
    return make('dialog', {id: 'help', 'aria-label': 'Keyboard shortcuts'},
        make('h2', {}, 'Keyboard shortcuts'),
        make('dl', {}, ...SHORTCUTS.flatMap(([keys, words]) => [
            make('dt', {}, ...keys.split(', ').flatMap((key, at) => at ? [' ', make('kbd', {}, key)] : [make('kbd', {}, key)])),
            make('dd', {}, words),
        ])),
        make('div', {class: 'form-buttons'}, make('button', {type: 'button', 'data-do': 'close-help', autofocus: ''}, 'Close')));
}
