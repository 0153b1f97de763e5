// The buttons of an operation, in its strip and in its drawer: retry, start again, cancel, dismiss.

import {make, set, setText} from '../elements.js';
import {count} from '../words.js';
import {isRunning, listStopped, listUnconfirmed} from './states.js';

const MAKERS = {
    again: () => make('button', {type: 'button', 'data-do': 'operation-again', 'data-needs': 'operator'}),
    details: () => make('button', {type: 'button', 'data-do': 'operation-details', 'aria-haspopup': 'dialog'}),
    restore: () => make('button', {type: 'button', 'data-do': 'operation-restore', 'data-needs': 'operator'}),
    cancel: () => make('button', {type: 'button', 'data-do': 'operation-cancel'}, 'Cancel'),
    dismiss: () => make('button', {type: 'button', 'data-do': 'operation-dismiss', 'data-needs': 'operator'}, 'Dismiss'),
};

export function createButtons(names, attributes) {
    const buttons = Object.fromEntries(names.map(name => [name, MAKERS[name]()]));
    const element = make('div', {class: 'buttons', ...attributes}, ...Object.values(buttons));

    // `shown` is null for a start that has no operation yet: it can be dismissed when it has failed.
    function render(shown, {others, isDismissible}) {
        const isOpen = Boolean(shown) && isRunning(shown);
        const again = !shown || isOpen || shown.success ? 0 : listUnconfirmed(shown).length;
        const stopped = shown ? listStopped(shown).length : 0;
        const states = {
            again: [again, `Retry ${count(again)}`],
            details: [Boolean(shown), others ? `Details (${others} more)` : 'Details'],
            restore: [stopped, `Start ${stopped === 1 ? 'it' : `these ${stopped}`} again…`],
            cancel: [isOpen && shown.state !== 'cancelled'],
            dismiss: [isDismissible],
        };
        for (const [name, button] of Object.entries(buttons)) {
            const [isShown, text] = states[name];
            set(button, 'hidden', !isShown);
            if (text) {
                setText(button, text);
            }
        }
        if (buttons.cancel && shown) {
            // Only an admin may cancel a stop of all, as only an admin may start one.
            set(buttons.cancel.dataset, 'needs', shown.isWholeAccount ? 'admin' : 'operator');
        }
    }

    return {element, render};
}
