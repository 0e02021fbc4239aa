/* The self-test firmware of the virtual board (nRF51822, Cortex-M0, freestanding).
 *
 * It speaks lines over the UART: commands end with \n, answers with \r\n.
 *   at boot    boot hilfw VERSION id <FICR DEVICEID, 16 hex digits>, then: ready
 *   selftest   measure NAME VALUE+UNIT for each, then: selftest done
 *   provision  fcc start; another program then has the line until it gives it back
 */
#include <stdbool.h>
#include <stdint.h>

#define VERSION "1.0.0"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART_STARTRX REGISTER(0x40002000)
#define UART_STARTTX REGISTER(0x40002008)
#define UART_RXDRDY REGISTER(0x40002108)
#define UART_TXDRDY REGISTER(0x4000211C)
#define UART_INTENSET REGISTER(0x40002304)
#define UART_ENABLE REGISTER(0x40002500)
#define UART_PSELTXD REGISTER(0x4000250C)
#define UART_PSELRXD REGISTER(0x40002514)
#define UART_RXD REGISTER(0x40002518)
#define UART_TXD REGISTER(0x4000251C)
#define UART_BAUDRATE REGISTER(0x40002524)
#define UART_INTERRUPT (1u << 2)

#define NVIC_ISER REGISTER(0xE000E100)
#define NVIC_ICPR REGISTER(0xE000E280)

#define GPIO_IN REGISTER(0x50000510)
#define GPIO_PIN_CNF(pin) REGISTER(0x50000700 + 4 * (pin))

#define FICR_DEVICEID0 REGISTER(0x10000060)
#define FICR_DEVICEID1 REGISTER(0x10000064)

#define ADC_PINS 16
#define LONGEST_COMMAND 32

extern uint32_t stack_top, data_image, data_start, data_end, bss_start, bss_end;

/* In .data: arrives in RAM only if the start-up code copied it. */
static volatile uint32_t copied[2] = {0x600DDA7A, 0xA7ADD006};

/* What the board's converters deliver. The emulated chip has no analogue side but the rail on its pins. */
static const uint16_t raw_rail_1v8 = 1535;   /* 1/1024 of the 1.2 V reference */
static const uint16_t raw_sleep_shunt = 120; /* microvolts over 10 ohms */
static const uint16_t raw_crystal = 4096;    /* periods in 1/8 s */
static const uint16_t raw_temperature = 98;  /* quarters of a degree */

static void put_char(char c)
{
    UART_TXDRDY = 0;
    UART_TXD = (uint8_t)c;
    while (!UART_TXDRDY) {
    }
}

static void put_text(const char *text)
{
    while (*text)
        put_char(*text++);
}

static void put_line(const char *text)
{
    put_text(text);
    put_text("\r\n");
}

static void put_hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        put_char("0123456789abcdef"[value >> shift & 15]);
}

static void put_decimal(uint32_t value)
{
    char digits[10];
    int count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count)
        put_char(digits[--count]);
}

/* Interrupts stay masked: a pending one ends the sleep, and is cleared by hand. */
static char get_char(void)
{
    while (!UART_RXDRDY)
        __asm volatile("wfi");
    UART_RXDRDY = 0;
    NVIC_ICPR = UART_INTERRUPT;
    return (char)UART_RXD;
}

static bool equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* False when the line was too long; its rest is swallowed. */
static bool get_line(char *line)
{
    int length = 0;
    for (;;) {
        char c = get_char();
        if (c == '\n')
            break;
        if (c == '\r')
            continue;
        if (length < LONGEST_COMMAND)
            line[length] = c;
        if (length <= LONGEST_COMMAND)
            length++;
    }
    if (length > LONGEST_COMMAND)
        return false;
    line[length] = 0;
    return true;
}

static void measure(const char *name, uint32_t value, const char *unit)
{
    put_text("measure ");
    put_text(name);
    put_char(' ');
    put_decimal(value);
    put_line(unit);
}

/* A parallel converter on the lowest pins, in millivolts. */
static uint32_t rail_3v3_mv(void)
{
    for (int pin = 0; pin < ADC_PINS; pin++)
        GPIO_PIN_CNF(pin) = 0; /* input, buffer connected, no pull */
    return GPIO_IN & ((1u << ADC_PINS) - 1);
}

/* Writes each free word of RAM with its own address and the complement, and looks. */
static uint32_t ram_errors(void)
{
    uint32_t errors = (copied[0] != 0x600DDA7A) + (copied[1] != 0xA7ADD006);
    volatile uint32_t *first = &bss_end;
    volatile uint32_t *end = (volatile uint32_t *)__builtin_frame_address(0) - 64; /* the stack's own */
    for (uint32_t invert = 0; invert < 2; invert++) {
        for (volatile uint32_t *word = first; word < end; word++)
            *word = (uint32_t)word ^ -invert;
        for (volatile uint32_t *word = first; word < end; word++)
            errors += *word != ((uint32_t)word ^ -invert);
    }
    return errors;
}

static void self_test(void)
{
    measure("rail-3v3", rail_3v3_mv(), "mV");
    measure("rail-1v8", (raw_rail_1v8 * 1200u + 512u) / 1024u, "mV");
    measure("sleep-current", raw_sleep_shunt / 10u, "uA");
    measure("crystal", raw_crystal * 8u, "Hz");
    measure("temperature", raw_temperature * 250u, "mdegC");
    measure("ram-errors", ram_errors(), "count");
    put_line("selftest done");
}

static void uart_begin(void)
{
    UART_PSELTXD = 24;
    UART_PSELRXD = 25;
    UART_BAUDRATE = 0x01D7E000; /* 115200 */
    UART_ENABLE = 4;
    UART_INTENSET = 1u << 2; /* RXDRDY */
    NVIC_ISER = UART_INTERRUPT;
    UART_STARTTX = 1;
    UART_STARTRX = 1;
}

static void serve(void)
{
    char line[LONGEST_COMMAND + 1];
    bool tested = false;
    for (;;) {
        if (!get_line(line)) {
            put_line("error line too long");
        } else if (equal(line, "selftest")) {
            self_test();
            tested = true;
        } else if (equal(line, "provision")) {
            put_line(tested ? "fcc start" : "error run selftest first");
        } else {
            put_line("error unknown command");
        }
    }
}

static void reset(void)
{
    __asm volatile("cpsid i");
    for (uint32_t *to = &data_start, *from = &data_image; to < &data_end;)
        *to++ = *from++;
    for (volatile uint32_t *word = &bss_start; word < &bss_end; word++)
        *word = 0;

    uart_begin();
    put_text("boot hilfw " VERSION " id ");
    put_hex(FICR_DEVICEID1);
    put_hex(FICR_DEVICEID0);
    put_line("");
    put_line("ready");
    serve();
}

static void fault(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[48] = {
    &stack_top, reset, fault, fault, [11] = fault, [14 ... 47] = fault,
};
