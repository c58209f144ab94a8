/* First on the include path of the pure C layers, because some systems have the real one in /usr/include. */
#error "erl_driver.h: c_src/base, engine, shared and cli know neither the VM nor ei; decode and encode in c_src/nif or c_node"
