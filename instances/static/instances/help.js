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
    let opener = null;

    function open() {
        dialog ||= makeDialog(giveFocusBack);
        if (!dialog.open) {
            opener = document.activeElement;
            dialog.showModal();
        }
    }

    // The browser does it, unless the menu of the opener has closed.
    function giveFocusBack() {
        if (document.activeElement === document.body || dialog.contains(document.activeElement)) {
            (opener.closest('details')?.querySelector('summary') || document.getElementById('content')).focus();
        }
    }

    return {actions: {help: open, 'close-help': () => dialog.close()}};
}

function makeDialog(onClose) {
    const dialog = make('dialog', {id: 'help', 'aria-label': 'Keyboard shortcuts'},
        make('h2', {}, 'Keyboard shortcuts'),
        make('dl', {}, ...SHORTCUTS.flatMap(([keys, words]) => [
            make('dt', {}, ...keys.split(', ').flatMap((key, at) => at ? [' ', make('kbd', {}, key)] : [make('kbd', {}, key)])),
            make('dd', {}, words),
        ])),
        make('div', {class: 'form-buttons'}, make('button', {type: 'button', 'data-do': 'close-help', autofocus: ''}, 'Close')));
    dialog.addEventListener('close', onClose);
    document.getElementById('content').append(dialog);
    return dialog;
}
