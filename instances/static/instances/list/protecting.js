// Protects an instance, and removes its protection: its section in the drawer, and the questions.

import {make, set, setText} from '../elements.js';
import {send} from '../session.js';
import {sayAge, sayMoment} from '../words.js';
import {makeSection} from './facts.js';

// `ask` is that of confirm.js; `getOpener(id)` returns what gets the focus after a question whose opener is gone.
export function createProtecting({ask, inventory, messages, protection: protections, refreshAnew, render, getOpener}) {
    const busy = new Set(); // ids whose protection is being changed
    const words = make('p', {});
    const protect = make('button', {type: 'button', 'data-do': 'protect', 'data-needs': 'operator'}, 'Protect…');
    const unprotect = make('button', {type: 'button', 'data-do': 'unprotect', 'data-needs': 'admin'}, 'Remove protection…');
    const section = makeSection('Protection', words, protect, unprotect);

    function updateSection(one, isGone) {
        const protection = protections.get(one.id);
        const focused = document.activeElement;
        setText(words, protection ? sayProtection(protection) : 'Not protected. Stop all includes it.');
        set(protect, 'hidden', Boolean(protection) || isGone);
        set(unprotect, 'hidden', !protection);
        if (section.contains(focused) && focused.hidden) {
            [protect, unprotect].find(button => button.checkVisibility())?.focus({preventScroll: true});
        }
    }

    function sayProtection({reason, protectedBy, protectedAt}) {
        const by = protectedBy ? ` by ${protectedBy}` : '';
        return `Protected${by} on ${sayMoment(protectedAt)} (${sayAge(protectedAt)}): ${reason}`;
    }

    async function askToProtect(id) {
        const answer = await ask({
            title: 'Protect',
            name: getName(id),
            sentences: ['The panel then refuses to stop or restart it, and Stop all leaves it out, until the protection is removed.'],
            field: {label: 'Reason', maxLength: 500},
            action: 'Protect',
            findOpener: () => getOpener(id),
        });
        if (answer) {
            await change(id, 'POST', {reason: answer.text});
        }
    }

    async function askToRemove(id) {
        const protection = protections.get(id);
        const answer = await ask({
            title: 'Remove protection from',
            name: getName(id),
            facts: protection ? sayProtection(protection) : '',
            sentences: ['It can then be stopped and restarted, and Stop all includes it.'],
            action: 'Remove protection',
            isDanger: true,
            findOpener: () => getOpener(id),
        });
        if (answer) {
            await change(id, 'DELETE');
        }
    }

    function getName(id) {
        return inventory.get(id)?.name || id;
    }

    async function change(id, method, body) {
        if (busy.has(id)) {
            return;
        }
        busy.add(id);
        try {
            await send(method, `/api/instances/${encodeURIComponent(id)}/protect`, body);
            messages.tell(id, body ? 'Protected.' : 'Protection removed.');
        } catch (error) {
            messages.fail(id, error);
        }
        busy.delete(id);
        render();
        await refreshAnew();
    }

    return {
        section,
        updateSection,
        actions: {
            protect: (_button, holder) => askToProtect(holder.dataset.id),
            unprotect: (_button, holder) => askToRemove(holder.dataset.id),
        },
    };
}
