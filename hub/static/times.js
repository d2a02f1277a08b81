// For pages whose times are all that a script changes.
import { tellTimes } from "./hub.js";

tellTimes();
