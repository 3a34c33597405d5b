import { Trainer } from "./trainer.js";
import { DEFAULTS } from "./settings.js";
