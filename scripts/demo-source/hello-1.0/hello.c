#include <stdio.h>

int main(void)
{
    puts("Hello from a build machine.");
    return 0;
}
