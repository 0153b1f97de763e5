// What each page with a bar has: menus, a login that may change in another tab, and charts that stay fresh.

import {createFragments} from './cards/fragment.js';
import {watchMenus} from './menus.js';
import {watchLogin} from './session.js';

watchMenus();
watchLogin();
createFragments();
