// The menu of an instance: what its row has no button for. It opens from the row and from the drawer.

import {make, setDisabled} from '../elements.js';
import {read} from '../service.js';

// The address that Novita's documentation names for the list of instances; it names none of a single one.
const CONSOLE = 'https://novita.ai/gpu-instance/console/instances';
const DISTANCE = 4;
const MARGIN = 8;

export function createMenu({inventory, protection, canRequest}) {
    let menu = null; // {element, button, top} that is open; `top` is the place of its button

    function listItems(one) {
        const item = (text, attributes) => make('button', {type: 'button', role: 'menuitem', tabindex: -1, ...attributes}, text);
        return [
            ...canRequest('restart', one) ? [item('Restart…', {'data-do': 'act', 'data-action': 'restart', 'data-needs': 'operator'})] : [],
            protection.get(one.id)
                ? item('Remove protection…', {'data-do': 'unprotect', 'data-needs': 'admin'})
                : item('Protect…', {'data-do': 'protect', 'data-needs': 'operator'}),
            item('Copy ID', {'data-do': 'copy', 'data-text': one.id}),
            takeEndpoint(one.id, item('Copy endpoint', {'data-do': 'copy', 'aria-disabled': 'true'})),
            make('a', {role: 'menuitem', tabindex: -1, href: CONSOLE, target: '_blank', rel: 'noopener noreferrer'}, "Open Novita's console"),
        ];
    }

    // The rows have no endpoints. The item stays in its place: it can be pressed once the endpoint was read.
    function takeEndpoint(id, button) {
        read(`/api/instances/${encodeURIComponent(id)}`).then(({portMappings}) => {
            const endpoint = portMappings.map(mapping => mapping.endpoint).find(Boolean);
            if (endpoint) {
                button.dataset.text = endpoint;
                setDisabled(button, false);
            } else {
                button.title = 'This instance has no endpoint.';
            }
        }, error => {
            button.title = error.message;
        });
        return button;
    }

    // What the menu offers stays while it is open: nothing else slides under the pointer.
    function toggle(button, holder) {
        const isOpen = menu?.button === button;
        close();
        const one = inventory.get(holder.dataset.id);
        if (isOpen || !one) {
            return;
        }
        const element = make('div', {role: 'menu', class: 'row-menu', popover: 'manual', 'aria-label': `Actions for ${one.name || one.id}`, 'data-id': one.id},
            ...listItems(one));
        menu = {element, button, top: button.getBoundingClientRect().top};
        // The rest of the page is inert while a drawer covers it.
        (button.closest('.drawer') || document.body).append(element);
        element.showPopover();
        place(element, button.getBoundingClientRect());
        button.setAttribute('aria-expanded', 'true');
        list()[0].focus();
    }

    // Below the button, or above where there is no room.
    function place(element, from) {
        const {width, height} = element.getBoundingClientRect();
        const {clientWidth, clientHeight} = document.documentElement;
        const fitsBelow = from.bottom + DISTANCE + height + MARGIN <= clientHeight;
        const top = fitsBelow ? from.bottom + DISTANCE : from.top - DISTANCE - height;
        element.style.top = `${Math.max(MARGIN, top)}px`;
        element.style.left = `${Math.max(MARGIN, Math.min(from.right, clientWidth - MARGIN) - width)}px`;
    }

    function close() {
        if (!menu) {
            return;
        }
        const {element, button} = menu;
        const hadFocus = element.contains(document.activeElement);
        menu = null;
        element.remove();
        button.setAttribute('aria-expanded', 'false');
        if (hadFocus) {
            button.focus({preventScroll: true});
        }
    }

    // Those that the visitor's role sees.
    function list() {
        return [...menu.element.children].filter(item => item.checkVisibility());
    }

    function move(event) {
        const items = list();
        const at = items.indexOf(document.activeElement);
        const next = {
            ArrowDown: items[(at + 1) % items.length],
            ArrowUp: items.at(at - 1),
            Home: items[0],
            End: items.at(-1),
        }[event.key] || items.find((item, number) => number > at && startsWith(item, event.key)) || items.find(item => startsWith(item, event.key));
        if (event.key === 'Escape') {
            close();
        } else {
            next?.focus();
        }
        if (event.key === 'Escape' || next) {
            event.preventDefault();
            event.stopPropagation();
        }
    }

    function startsWith(item, key) {
        return key.length === 1 && key !== ' ' && item.textContent.toLowerCase().startsWith(key.toLowerCase());
    }

    document.addEventListener('keydown', event => {
        if (menu && event.key === 'Tab') {
            close();
        } else if (menu?.element.contains(event.target)) {
            move(event);
        }
    }, {capture: true});
    // Before the item's action: a dialog that it opens gives the focus back to the menu's button.
    document.addEventListener('click', ({target}) => {
        if (menu && !menu.button.contains(target) && !target.closest('[aria-disabled=true]')) {
            close();
        }
    }, {capture: true});
    addEventListener('resize', close);
    document.addEventListener('scroll', () => {
        if (menu && menu.button.getBoundingClientRect().top !== menu.top) {
            close();
        }
    }, {capture: true, passive: true});

    return {actions: {menu: toggle}};
}
