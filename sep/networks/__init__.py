"""Networks that add a mechanism to `sep.model.QueryNet`; `sep.hub.KINDS` names them."""
